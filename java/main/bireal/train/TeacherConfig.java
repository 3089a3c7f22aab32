package bireal.train;

import bireal.nn.NetworkConfig;

/**
 * A network whose outputs are the targets: the loss is the cross-entropy of the student with
 * softmax(teacher logits / temperature), the student's logits divided likewise, without a factor
 * temperature^2 and without the labels (ReActNet's loss at temperature 1, networks.md 2.3). The
 * teacher sees the same augmented images, in inference mode.
 *
 * @param weights a run folder (its best checkpoint, else its newest), a checkpoint, or a
 *     safetensors file with the network's published names
 * @param temperature greater than 0
 * @param model the network; its classes are the student's
 */
public record TeacherConfig(String weights, double temperature, NetworkConfig model) {
  public TeacherConfig {
    if (weights.isBlank()) {
      throw new IllegalArgumentException(
          "weights must name a run folder, a checkpoint or a safetensors file, got no name");
    }
    if (!(temperature > 0 && temperature <= 1000)) {
      throw new IllegalArgumentException("temperature must be in (0, 1000], got " + temperature);
    }
  }
}
