package bireal.train;

import bireal.backend.Backend;
import bireal.nn.Network;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.runtime.InputException;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.file.Path;

/** The teacher of a stage: a network in inference mode on the student's images. */
public final class Teacher implements AutoCloseable {
  private final TeacherConfig config;
  private final Network student;
  private final Network network;
  private final Backend backend;

  /** Plans the network into the student's memory, which is not allocated yet. */
  public Teacher(TeacherConfig config, Network student, Shape image) {
    this.config = config;
    this.student = student;
    this.backend = student.planner().backend();
    this.network =
        new Network(
            config.model(),
            image,
            new Planner(backend, student.planner().maxImages(), student.planner().real(), null));
    student.planner().include("teacher", network.planner());
  }

  /** Throws an InputException if the file is not one of this network, or has other classes. */
  void check() {
    try (Safetensors file = WeightFiles.open("teacher.weights", Path.of(config.weights())).file()) {
      transfer(file);
    }
  }

  /** Reads the weights; once the student's memory is allocated. */
  void load() {
    network.initialize(0); // the counters of batches; all else is filled from the file
    try (Safetensors file = WeightFiles.open("teacher.weights", Path.of(config.weights())).file()) {
      transfer(file).fill(network);
    }
    network.refresh();
  }

  private WeightTransfer transfer(Safetensors file) {
    WeightTransfer.Source source = WeightTransfer.Source.of(file);
    for (State state : network.planner().states()) {
      long[] dims = source.shapes().get(state.name());
      if (state.name().equals("fc.bias")
          && dims != null
          && dims.length == 1
          && dims[0] != config.model().classes()) {
        throw new InputException(
            "teacher.weights: "
                + file.path()
                + " is a network of "
                + dims[0]
                + " classes (fc.bias), the student has "
                + config.model().classes()
                + "; use a teacher that was trained on the same data");
      }
    }
    try {
      return new WeightTransfer(network.planner(), source, StartConfig.FROM_SEED);
    } catch (CheckpointException e) {
      throw new InputException(
          "teacher.weights: "
              + e.getMessage().replaceAll(" \\(start\\.\\w+\\)", "").replaceFirst("; where .*", "")
              + ", or correct teacher.model",
          e);
    }
  }

  /** Logits of the first {@code n} images of the student's input. */
  Tensor logits(int n) {
    backend.copy(network.input(), student.input());
    network.forward(n, Pass.EVALUATE);
    return network.logits();
  }

  @Override
  public void close() {
    network.close();
  }
}
