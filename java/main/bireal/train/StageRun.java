package bireal.train;

import bireal.backend.Backend;
import bireal.backend.ImageSpec;
import bireal.data.BatchLoader;
import bireal.data.Dataset;
import bireal.data.Datasets;
import bireal.data.MicroBatch;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.tensor.Rng;
import bireal.tensor.Scope;
import bireal.tensor.Shape;
import java.nio.file.Path;
import java.util.List;

/**
 * One stage at work: its network, planned for training, and what feeds it. Planning it finds what
 * is wrong with the stage's settings; it takes no memory before {@link #allocate}. One thread.
 */
final class StageRun implements AutoCloseable {
  private final Scope opened = new Scope();
  private final Stage stage;
  private final Dataset images;
  private final ImageSpec imageSpec;
  private final Network network;
  private final TrainStep step;
  private final Teacher teacherOrNull;
  private final ImageInput input;
  private final Evaluator evaluator;
  private final long stepsPerEpoch;
  private BatchLoader loader;

  /** The coming micro-batch, on its way to the backend. */
  private MicroBatch next;

  private boolean uploaded;

  /** Datasets of a stage. */
  record Images(Dataset train, Dataset test) {}

  /**
   * Plans the stage. Throws IllegalArgumentException or an InputException for settings that cannot
   * be trained.
   */
  StageRun(Stage stage, Images datasets, Backend backend) {
    this.stage = stage;
    this.images = datasets.train();
    TrainConfig config = stage.train();
    try {
      stepsPerEpoch = stepsPerEpoch(stage, images);
      stage.schedule().requireFits(stepsPerEpoch, config.epochs());
      imageSpec = Datasets.imageSpec(stage.data(), images);
      Shape image = Shape.of(imageSpec.H(), imageSpec.W(), imageSpec.C());
      Planner planner =
          new Planner(backend, config.microBatch(), config.precision().real, config.gradient());
      network = opened.add(new Network(stage.model(), image, planner));
      boolean taught = stage.teacher().isPresent();
      step =
          opened.add(
              new TrainStep(
                  network,
                  stage.optimizer(),
                  config.labelSmoothing(),
                  taught,
                  taught ? stage.teacher().get().temperature() : 1));
      input = new ImageInput(network, imageSpec, stage.data().mean(), stage.data().std());
      evaluator = new Evaluator(network, datasets.test(), stage.data());
      for (int batch : new int[] {config.batch(), rest(images.count(), config.batch())}) {
        network.requireTrainable(rest(batch, config.microBatch()));
      }
      teacherOrNull =
          taught ? opened.add(new Teacher(stage.teacher().get(), network, image)) : null;
      if (taught) {
        teacherOrNull.check();
      }
    } catch (RuntimeException | Error e) {
      opened.closeAfter(e);
      throw e;
    }
  }

  static long stepsPerEpoch(Stage stage, Dataset images) {
    int batch = stage.train().batch();
    return ((long) images.count() + batch - 1) / batch;
  }

  /** Size of the last part when {@code count} is cut into parts of {@code part}. */
  private static int rest(int count, int part) {
    return count % part == 0 ? Math.min(part, count) : count % part;
  }

  /**
   * Throws unless its weights can be taken over from the stage before, planned alike, or from its
   * file, and its memory is free.
   */
  void check(StageRun previousOrNull) {
    StartConfig start = stage.start();
    if (start.fromFile()) {
      try (Safetensors file = startFile()) {
        new WeightTransfer(network.planner(), WeightTransfer.Source.of(file), start);
      }
    } else if (start.from().equals(StartConfig.PREVIOUS)) {
      new WeightTransfer(
          network.planner(),
          WeightTransfer.Source.of(what(previousOrNull), previousOrNull.network.planner(), null),
          start);
    }
    if (start.binaryWeights() != StartConfig.BinaryWeights.KEPT) {
      BinaryWeights.requirePossible(
          network, start.binaryWeights() == StartConfig.BinaryWeights.FOLDED);
    }
    network.planner().requireFits();
  }

  private static String what(StageRun previous) {
    return "start.from previous: the network of stage " + previous.stage.name();
  }

  private Safetensors startFile() {
    return WeightFiles.open("start.from", Path.of(stage.start().from())).file();
  }

  /** Takes the memory; with teacher and all. */
  void allocate() {
    network.allocate();
    step.optimizer().prepare();
    if (teacherOrNull != null) {
      teacherOrNull.load();
    }
  }

  /**
   * Gives the network its first weights; {@code previous} are those of the stage before, for a
   * stage that wants them. With {@code resumed} a checkpoint will replace them all.
   */
  void initialize(long seed, WeightTransfer.Source previous, boolean resumed) {
    StartConfig start = stage.start();
    network.initialize(seed);
    step.startLossScale(List.of());
    if (resumed || start.from().equals(StartConfig.NOTHING)) {
      return;
    }
    if (start.fromFile()) {
      try (Safetensors file = startFile()) {
        new WeightTransfer(network.planner(), WeightTransfer.Source.of(file), start).fill(network);
      }
    } else {
      new WeightTransfer(network.planner(), previous, start).fill(network);
    }
    network.refresh();
    if (start.binaryWeights() != StartConfig.BinaryWeights.KEPT) {
      BinaryWeights.constrain(network, start.binaryWeights() == StartConfig.BinaryWeights.FOLDED);
    }
  }

  /**
   * Starts the images after {@code done} steps of this stage. Number {@code index} (from 0) of the
   * run: two stages with the same data see them in another order.
   */
  void startImages(long seed, int index, long done) {
    TrainConfig config = stage.train();
    loader =
        opened.add(
            new BatchLoader(
                images,
                stage.data(),
                imageSpec,
                BatchLoader.Order.SHUFFLED,
                config.batch(),
                config.microBatch(),
                index == 0 ? seed : Rng.state(seed, "stage/" + index),
                BatchLoader.Position.at(done, stepsPerEpoch)));
  }

  /** Step {@code number} (from 1) of this stage; {@code last}: none follows. */
  void train(long number, double lr, boolean last) {
    step.begin(number, lr);
    if (!uploaded) {
      upload();
    }
    boolean more;
    do {
      int images = next.images();
      int batchImages = next.batchImages();
      more = next.microIndex() + 1 < next.microCount();
      input.load();
      uploaded = false;
      if (teacherOrNull != null) {
        network.planner().backend().copy(step.teacherLogits(), teacherOrNull.logits(images));
      }
      if (more) {
        step.microBatch(images, batchImages);
      } else {
        step.lastMicroBatch(images, batchImages);
      }
      if (more || !last) { // while this one is at work
        upload();
      }
    } while (more);
    step.finish();
  }

  private void upload() {
    next = loader.next();
    input.upload(next);
    uploaded = true;
  }

  /** Rate of step {@code number} (from 1). */
  double lr(long number) {
    double base =
        stage.optimizer().lr() * stage.train().batch() / stage.optimizer().referenceBatch();
    return base * stage.schedule().at(number - 1, stepsPerEpoch, stage.train().epochs());
  }

  Stage stage() {
    return stage;
  }

  Network network() {
    return network;
  }

  TrainStep step() {
    return step;
  }

  Evaluator evaluator() {
    return evaluator;
  }

  long stepsPerEpoch() {
    return stepsPerEpoch;
  }

  @Override
  public void close() {
    opened.close();
  }
}
