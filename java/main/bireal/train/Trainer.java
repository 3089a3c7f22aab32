package bireal.train;

import bireal.backend.Backend;
import bireal.data.BatchLoader;
import bireal.data.DataConfig;
import bireal.data.Dataset;
import bireal.data.Datasets;
import bireal.data.MicroBatch;
import bireal.data.Split;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Planner;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Scope;
import bireal.tensor.Shape;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.TreeMap;
import java.util.function.BooleanSupplier;

/**
 * A training run in its folder, from a fresh start or from its newest checkpoint, which it
 * continues to the bit. Owns everything it opens but backend and run folder. One thread.
 */
public final class Trainer implements AutoCloseable {
  /**
   * What a run is made of.
   *
   * @param trajectory every setting that the numbers depend on, by key; a checkpoint keeps it, and
   *     a resume with others is refused
   */
  public record Setup(
      NetworkConfig network,
      DataConfig data,
      OptimizerConfig optimizer,
      LrSchedule schedule,
      TrainConfig train,
      long seed,
      Map<String, String> trajectory) {}

  /**
   * How a run ended: complete, or stopped on request with a checkpoint; {@code lastEvaluation} has
   * 0 images if there was none.
   *
   * @param step how far it got
   * @param checkpoint the newest good one; null if none could be written
   * @param savedStep the step of that one; less than {@code step} if the last ones failed
   * @param failures of writing checkpoints and log lines, one for each time, in their order; only
   *     with {@code on_checkpoint_failure: continue}
   */
  public record Summary(
      boolean complete,
      long step,
      Metrics lastEvaluation,
      double bestTop1Percent,
      Path checkpoint,
      long savedStep,
      List<String> failures) {}

  private static final String MODEL = "model.safetensors";
  private static final String OPTIMIZER = "optimizer.safetensors";

  private final Scope opened = new Scope();
  private final Setup setup;
  private final TrainConfig config;
  private final Progress progress;
  private final Network network;
  private final TrainStep step;
  private final ImageInput input;
  private final Evaluator evaluator;
  private final BatchLoader loader;
  private final CheckpointStore checkpoints;
  private final RunLog log;
  private final long stepsPerEpoch;
  private final long totalSteps;
  private final double baseLr;

  // What a RunState holds.
  private long done;
  private final Metrics window = new Metrics();
  private final Metrics epochSoFar = new Metrics();
  private Metrics lastEvaluation = new Metrics();
  private double bestTop1Percent = RunState.NO_BEST;
  private long bestStep = -1;
  private boolean evaluationDue;
  private long earlierFallbacks;

  private final List<String> failures = new ArrayList<>();
  private long savedStep = -1;
  private Path lastCheckpoint;

  /** A new run, or with {@code resume} the continuation of the run in the folder. */
  public Trainer(
      Setup setup, Backend backend, RunFolder folder, boolean resume, Progress progress) {
    this(setup, backend, folder, resume, OptionalLong.empty(), progress);
  }

  /**
   * As above; with {@code fromStep} it goes on from the checkpoint of that step instead of the
   * newest, and deletes those after it, which it will make again.
   */
  public Trainer(
      Setup setup,
      Backend backend,
      RunFolder folder,
      boolean resume,
      OptionalLong fromStep,
      Progress progress) {
    this.setup = setup;
    this.config = setup.train();
    this.progress = progress;
    try {
      Dataset images = Datasets.open(setup.data(), Split.TRAIN, setup.seed());
      var imageSpec = Datasets.imageSpec(setup.data(), images);
      Planner planner = new Planner(backend, config.microBatch(), config.gradient());
      network =
          opened.add(
              new Network(
                  setup.network(), Shape.of(imageSpec.H(), imageSpec.W(), imageSpec.C()), planner));
      step = opened.add(new TrainStep(network, setup.optimizer(), config.labelSmoothing(), false));
      input = new ImageInput(network, imageSpec, setup.data().mean(), setup.data().std());
      evaluator =
          new Evaluator(
              network, Datasets.open(setup.data(), Split.TEST, setup.seed()), setup.data());
      for (int batch : new int[] {config.batch(), rest(images.count(), config.batch())}) {
        network.requireTrainable(rest(batch, config.microBatch()));
      }
      network.allocate();
      network.initialize(setup.seed());
      stepsPerEpoch = ((long) images.count() + config.batch() - 1) / config.batch();
      totalSteps = stepsPerEpoch * config.epochs();
      baseLr = setup.optimizer().lr() * config.batch() / setup.optimizer().referenceBatch();
      checkpoints = folder.openCheckpoints();
      if (fromStep.isPresent()) {
        restore(checkpoints.at(fromStep.getAsLong()));
        checkpoints.discardAfter(done);
      } else if (resume) {
        checkpoints.latest().ifPresent(this::restore);
      }
      log = opened.add(folder.openLog(done));
      loader =
          opened.add(
              new BatchLoader(
                  images,
                  setup.data(),
                  imageSpec,
                  BatchLoader.Order.SHUFFLED,
                  config.batch(),
                  config.microBatch(),
                  setup.seed(),
                  BatchLoader.Position.at(done, stepsPerEpoch)));
    } catch (RuntimeException | Error e) {
      opened.closeAfter(e);
      throw e;
    }
  }

  /**
   * Trains to the end, or until {@code stop} says true after a step; then saves a checkpoint and
   * returns. Throws {@link NonFiniteException} with the checkpoints as they were, and {@link
   * SaveException} where a checkpoint or a log line cannot be written, unless the config says to go
   * on.
   */
  public Summary run(BooleanSupplier stop) {
    progress.started(done, totalSteps, stepsPerEpoch);
    while (!evaluationDue || evaluate(stop)) {
      if (done == totalSteps || stop.getAsBoolean()) {
        break;
      }
      double lr = baseLr * setup.schedule().at(done, stepsPerEpoch, config.epochs());
      step.begin(done + 1, lr);
      MicroBatch batch;
      do {
        batch = loader.next();
        input.load(batch);
        step.microBatch(batch.images(), batch.batchImages());
      } while (batch.microIndex() + 1 < batch.microCount());
      step.finish();
      done++;
      record(lr);
      if (!evaluationDue && checkpointDue()) {
        save();
      }
    }
    if (savedStep != done) {
      save();
    }
    boolean complete = done == totalSteps && !evaluationDue;
    return new Summary(
        complete,
        done,
        lastEvaluation,
        bestTop1Percent,
        lastCheckpoint,
        savedStep,
        List.copyOf(failures));
  }

  /**
   * Changes the run's files; where that fails, it does what the config says. {@code failure} says
   * what did not happen.
   */
  private void write(String failure, Runnable writing) {
    try {
      writing.run();
    } catch (CheckpointException | RunFolderException e) {
      String reason = "step " + done + ": " + failure + ": " + e.getMessage();
      if (config.onCheckpointFailure() == TrainConfig.OnCheckpointFailure.STOP) {
        throw new SaveException(
            reason
                + (lastCheckpoint == null
                    ? "; there is no checkpoint before it"
                    : "; the newest good checkpoint is " + lastCheckpoint),
            e);
      }
      failures.add(reason);
      progress.notSaved(done, reason);
    }
  }

  private void log(String event, ObjectNode fields) {
    write("a log line was not written", () -> log.append(event, done, fields));
  }

  private void record(double lr) {
    window.add(step.metrics());
    epochSoFar.add(step.metrics());
    progress.step(done, step.metrics(), epochSoFar, lr);
    if (done % config.logEverySteps() == 0 || done % stepsPerEpoch == 0) {
      log(
          "train",
          fields(window)
              .put("lr", lr)
              .put("grad_norm", step.gradNorm())
              .put("gradient_fallbacks", gradientFallbacks()));
      window.clear();
    }
    if (done % stepsPerEpoch == 0) {
      epochSoFar.clear();
      long epoch = done / stepsPerEpoch;
      evaluationDue = epoch % config.evaluateEveryEpochs() == 0 || done == totalSteps;
    }
  }

  /** Of the run so far; see {@link bireal.backend.Gradient}. */
  private long gradientFallbacks() {
    return earlierFallbacks + network.gradientFallbacks();
  }

  private ObjectNode fields(Metrics metrics) {
    return RunLog.fields()
        .put("epoch", (double) done / stepsPerEpoch)
        .put("loss", metrics.loss())
        .put("top1", metrics.top1Percent())
        .put("top5", metrics.top5Percent())
        .put("images", metrics.images());
  }

  /** False if {@code stop} ended it; it is still due then, also for a run that resumes. */
  private boolean evaluate(BooleanSupplier stop) {
    Metrics metrics = evaluator.run(progress, stop);
    if (metrics == null) {
      return false;
    }
    evaluationDue = false;
    lastEvaluation = metrics;
    boolean best = metrics.top1Percent() > bestTop1Percent;
    bestStep = best ? done : bestStep;
    bestTop1Percent = Math.max(bestTop1Percent, metrics.top1Percent());
    log("eval", fields(metrics));
    progress.evaluated((int) (done / stepsPerEpoch), metrics, best);
    if (best
        || checkpointDue()
        || savedStep == done) { // a stop may have saved this step with its evaluation due
      save();
    }
    if (best && savedStep == done) {
      write(
          "the best checkpoint was not marked",
          () -> {
            checkpoints.markBest(done, bestTop1Percent);
            checkpoints.prune(config.keepCheckpoints());
          });
    }
    return true;
  }

  private boolean checkpointDue() {
    long every = config.checkpointEverySteps() == 0 ? stepsPerEpoch : config.checkpointEverySteps();
    return done % every == 0;
  }

  private void save() {
    savedStep = -1; // also where an older state of this step is on disk
    write("the checkpoint was not written", this::saveCheckpoint);
    if (savedStep == done) {
      write("old checkpoints were not deleted", () -> checkpoints.prune(config.keepCheckpoints()));
    }
  }

  private void saveCheckpoint() {
    log.sync();
    RunState state =
        new RunState(
            done,
            window,
            epochSoFar,
            lastEvaluation,
            evaluationDue,
            bestTop1Percent,
            bestStep,
            gradientFallbacks(),
            setup.trajectory());
    lastCheckpoint =
        checkpoints.save(
            done,
            Map.of(
                MODEL,
                NetworkFiles.model(network, done),
                OPTIMIZER,
                NetworkFiles.moments(network, step.optimizer())),
            state.json(stepsPerEpoch, setup.seed()));
    savedStep = done;
    progress.saved(done, lastCheckpoint);
  }

  private void restore(Checkpoint checkpoint) {
    RunState state = RunState.of(checkpoint);
    Map<String, String> saved = state.trajectory();
    List<String> differences = new ArrayList<>();
    TreeMap<String, String> both = new TreeMap<>(saved);
    both.putAll(setup.trajectory());
    for (String key : both.keySet()) {
      String was = saved.get(key);
      String now = setup.trajectory().get(key);
      if (was == null || !was.equals(now)) {
        differences.add(key + " was " + was + ", is " + now);
      }
    }
    if (!differences.isEmpty()) {
      throw new CheckpointException(
          checkpoint.folder()
              + " was trained with another config: "
              + String.join("; ", differences)
              + ". Restore these values to resume it, or start a new run under another name");
    }
    try (Safetensors model = checkpoint.tensors(MODEL)) {
      NetworkFiles.load(network, model);
    }
    try (Safetensors moments = checkpoint.tensors(OPTIMIZER)) {
      NetworkFiles.loadMoments(network, step.optimizer(), moments);
    }
    done = state.step();
    window.set(state.logWindow());
    epochSoFar.set(state.epochSoFar());
    lastEvaluation = state.lastEvaluation();
    evaluationDue = state.evaluationDue();
    bestTop1Percent = state.bestTop1Percent();
    bestStep = state.bestStep();
    earlierFallbacks = state.gradientFallbacks();
    lastCheckpoint = checkpoint.folder();
    savedStep = done;
    if (bestStep == done && !evaluationDue) {
      checkpoints.markBest(
          done, bestTop1Percent); // a crash may have come between saving and marking
    }
  }

  /** Size of the last part when {@code count} is cut into parts of {@code part}. */
  private static int rest(int count, int part) {
    return count % part == 0 ? Math.min(part, count) : count % part;
  }

  /** Optimizer steps done. */
  public long step() {
    return done;
  }

  public Network network() {
    return network;
  }

  @Override
  public void close() {
    opened.close();
  }
}
