package bireal.config;

import bireal.backend.Precision;
import bireal.data.DataConfig;
import bireal.nn.NetworkConfig;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.train.Stage;
import bireal.train.StartConfig;
import bireal.train.TeacherConfig;
import bireal.train.TrainConfig;
import java.util.Optional;
import java.util.regex.Pattern;

/**
 * All of a stage of a run (most runs are one stage): one record for each part, owned and validated
 * by that part, which never sees this one. Here only what concerns two parts at once is checked.
 * Immutable.
 *
 * @param name names the run folder
 * @param seed of initial weights, order of the images and augmentation
 * @param backend implementation that runs the network
 * @param device number of the GPU
 * @param cudaGraphs whether it replays the launches of a step
 * @param threads of the backend; 0 = as many as there are cores
 * @param runsFolder folder in which the run gets its folder
 * @param start where the weights come from
 * @param teacher whose outputs are the targets, if any
 */
public record RunConfig(
    String name,
    long seed,
    BackendKind backend,
    int device,
    boolean cudaGraphs,
    int threads,
    String runsFolder,
    NetworkConfig model,
    StartConfig start,
    Optional<TeacherConfig> teacher,
    DataConfig data,
    OptimizerConfig optimizer,
    LrSchedule schedule,
    TrainConfig train) {
  private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}");

  /** Messages start with the path of the key to blame: the loader finds its line by that. */
  public RunConfig {
    check(
        NAME.matcher(name).matches(),
        "name must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit; got "
            + Values.quote(name));
    check(device >= 0 && device <= 255, "device must be in 0..255, got " + device);
    check(
        train.precision() == Precision.FP32
            || backend == BackendKind.CUDA
            || backend == BackendKind.AUTO,
        "train.precision must be fp32 with backend "
            + Values.spelling(backend)
            + ", got "
            + Values.spelling(train.precision())
            + "; 16-bit values need backend cuda");
    check(threads >= 0 && threads <= 1024, "threads must be in 0..1024, got " + threads);
    check(!runsFolder.isBlank(), "runs_folder must name a folder, got no name");
    String dataset = Values.spelling(data.dataset());
    int classes =
        switch (data.dataset()) {
          case FASHION_MNIST, CIFAR10 -> 10;
          case IMAGENET -> 1000;
          case SYNTHETIC -> data.syntheticClasses();
        };
    int channels =
        switch (data.dataset()) {
          case FASHION_MNIST -> 1;
          case CIFAR10, IMAGENET -> 3;
          case SYNTHETIC -> data.syntheticChannels();
        };
    check(
        model.classes() == classes,
        "model.classes must be "
            + classes
            + ", the classes of data.dataset "
            + dataset
            + ", got "
            + model.classes());
    check(
        data.mean().size() == channels,
        "data.mean must have as many values as data.dataset "
            + dataset
            + " has channels, "
            + channels
            + ", got "
            + data.mean().size());
    check(
        data.dataset() == DataConfig.Kind.SYNTHETIC || !data.path().isBlank(),
        "data.path must name the folder with the files of data.dataset "
            + dataset
            + ", got no name");
    int reduction = model.stem() == NetworkConfig.Stem.IMAGENET ? 32 : 8;
    check(
        data.imageSize() >= reduction,
        "data.image_size must be >= "
            + reduction
            + ", by which the network with model.stem "
            + Values.spelling(model.stem())
            + " divides it, got "
            + data.imageSize());
    if (teacher.isPresent()) {
      check(
          teacher.get().model().classes() == model.classes(),
          "teacher.model.classes must be those of the student, "
              + model.classes()
              + ", got "
              + teacher.get().model().classes());
      check(
          train.labelSmoothing() == 0,
          "train.label_smoothing must be 0 with a teacher, whose loss has no labels, got "
              + train.labelSmoothing());
    }
    try {
      schedule.requireFits(train.epochs());
    } catch (IllegalArgumentException e) {
      throw new IllegalArgumentException("schedule." + e.getMessage(), e);
    }
  }

  /** As the trainer takes it; {@code stage} is its name, empty for the only one. */
  Stage stage(String stage) {
    return new Stage(stage, start, model, teacher, data, optimizer, schedule, train);
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
