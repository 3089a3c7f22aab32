package bireal.train;

import bireal.backend.Backend;
import bireal.backend.StepState;
import bireal.data.DataConfig;
import bireal.data.Datasets;
import bireal.data.Split;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.State;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.runtime.InputException;
import bireal.tensor.DType;
import bireal.tensor.Scope;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.BiPredicate;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;

/**
 * A training run in its folder, from a fresh start or from its newest checkpoint, which it
 * continues to the bit. A run is a list of stages, trained one after the other; steps are counted
 * over all of them, epochs and the best evaluation within each. Owns everything it opens but
 * backend and run folder. One thread.
 */
public final class Trainer implements AutoCloseable {
  /**
   * What a run is made of.
   *
   * @param stages in the order of training; their names differ
   * @param trajectory every setting that the numbers depend on, by key; a checkpoint keeps it, and
   *     a resume with others is refused
   * @param meantByAbsence whether a key has this value where a checkpoint lacks it, because it is
   *     older than the key
   */
  public record Setup(
      List<Stage> stages,
      long seed,
      Map<String, String> trajectory,
      BiPredicate<String, String> meantByAbsence) {
    public Setup {
      stages = List.copyOf(stages);
    }

    /** A run of one stage, from the seed. */
    public Setup(
        NetworkConfig network,
        DataConfig data,
        OptimizerConfig optimizer,
        LrSchedule schedule,
        TrainConfig train,
        long seed,
        Map<String, String> trajectory) {
      this(
          List.of(
              new Stage(
                  "",
                  StartConfig.FROM_SEED,
                  network,
                  Optional.empty(),
                  data,
                  optimizer,
                  schedule,
                  train)),
          seed,
          trajectory,
          (key, value) -> false);
    }
  }

  /**
   * How a stage ended.
   *
   * @param lastStep of the run; its checkpoint is kept
   */
  public record StageResult(
      String name, long lastStep, Metrics lastEvaluation, double bestTop1Percent) {}

  /**
   * How a run ended: complete, or stopped on request with a checkpoint; {@code lastEvaluation} has
   * 0 images if there was none.
   *
   * @param step how far it got
   * @param checkpoint the newest good one; null if none could be written
   * @param savedStep the step of that one; less than {@code step} if the last ones failed
   * @param stages those that are complete
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
      List<StageResult> stages,
      List<String> failures) {}

  private static final String MODEL = WeightFiles.MODEL;
  private static final String OPTIMIZER = "optimizer.safetensors";

  private final Scope opened = new Scope();
  private final Setup setup;
  private final Backend backend;
  private final Progress progress;
  private final Map<DataConfig, StageRun.Images> datasets = new HashMap<>();
  private final CheckpointStore checkpoints;
  private final RunLog log;
  private final long totalSteps;

  /** The stage at work, and its place. */
  private StageRun run;

  private TrainConfig config;
  private int index;
  private long firstStep;
  private long stageSteps;
  private long stepsPerEpoch;

  // What a RunState holds.
  private long done;
  private final Metrics window = new Metrics();
  private final Metrics epochSoFar = new Metrics();
  private Metrics lastEvaluation = new Metrics();
  private double bestTop1Percent = RunState.NO_BEST;
  private long bestStep = -1;
  private boolean evaluationDue;
  private long earlierFallbacks;
  private final List<StageResult> finished = new ArrayList<>();

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
    this.backend = backend;
    this.progress = progress;
    try {
      long steps = 0;
      for (Stage stage : setup.stages()) {
        steps += steps(stage);
      }
      totalSteps = steps;
      checkpoints = folder.openCheckpoints();
      Optional<Checkpoint> from = Optional.empty();
      if (fromStep.isPresent()) {
        from = Optional.of(checkpoints.at(fromStep.getAsLong()));
      } else if (resume) {
        from = checkpoints.latest();
      }
      from.ifPresent(this::requireSameSettings);
      open(from.map(this::stageOf).orElse(0));
      checkAhead(from.isEmpty());
      run.allocate();
      run.initialize(setup.seed(), null, from.isPresent());
      from.ifPresent(this::restore);
      if (fromStep.isPresent()) {
        checkpoints.discardAfter(done);
      }
      log = opened.add(folder.openLog(done));
      run.startImages(setup.seed(), index, done - firstStep);
    } catch (RuntimeException | Error e) {
      opened.closeAfter(e);
      closeRun(e);
      throw e;
    }
  }

  private long steps(Stage stage) {
    return StageRun.stepsPerEpoch(stage, images(stage).train()) * stage.train().epochs();
  }

  /** Opened once for all stages with the same data. */
  private StageRun.Images images(Stage stage) {
    return datasets.computeIfAbsent(
        stage.data(),
        data ->
            new StageRun.Images(
                Datasets.open(data, Split.TRAIN, setup.seed()),
                Datasets.open(data, Split.TEST, setup.seed())));
  }

  /** Plans stage {@code number} (from 0) as the one at work. */
  private void open(int number) {
    index = number;
    run = plan(number);
    config = run.stage().train();
    stepsPerEpoch = run.stepsPerEpoch();
    stageSteps = stepsPerEpoch * config.epochs();
    firstStep = 0;
    for (Stage before : setup.stages().subList(0, number)) {
      firstStep += steps(before);
    }
  }

  private StageRun plan(int number) {
    Stage stage = setup.stages().get(number);
    return named(stage, () -> new StageRun(stage, images(stage), backend));
  }

  /**
   * Plans every stage that is still to come and throws what it would throw then, days from now;
   * {@code alsoThis}: nor has the one at work begun.
   */
  private void checkAhead(boolean alsoThis) {
    if (alsoThis) {
      check(run, null);
    }
    StageRun before = run;
    try {
      for (int i = index + 1; i < setup.stages().size(); i++) {
        StageRun next = plan(i);
        StageRun previous = before;
        before = next;
        try {
          check(next, previous);
        } finally {
          if (previous != run) {
            previous.close();
          }
        }
      }
    } finally {
      if (before != run) {
        before.close();
      }
    }
  }

  private static void check(StageRun next, StageRun previous) {
    named(
        next.stage(),
        () -> {
          next.check(previous);
          return next;
        });
  }

  /** Errors say which stage they are about, where stages have names. */
  private static <T> T named(Stage stage, Supplier<T> work) {
    try {
      return work.get();
    } catch (IllegalArgumentException | InputException e) {
      if (stage.name().isEmpty()) {
        throw e;
      }
      throw new InputException("stage " + stage.name() + ": " + e.getMessage(), e);
    }
  }

  /**
   * Trains to the end, or until {@code stop} says true after a step; then saves a checkpoint and
   * returns. Throws {@link NonFiniteException} with the checkpoints as they were, and {@link
   * SaveException} where a checkpoint or a log line cannot be written, unless the config says to go
   * on.
   */
  public Summary run(BooleanSupplier stop) {
    progress.started(done, totalSteps);
    while (trainStage(stop) && index + 1 < setup.stages().size() && !stop.getAsBoolean()) {
      nextStage();
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
        List.copyOf(finished),
        List.copyOf(failures));
  }

  /** False if {@code stop} ended it. */
  private boolean trainStage(BooleanSupplier stop) {
    progress.stage(
        run.stage().name(), index + 1, setup.stages().size(), firstStep, stageSteps, stepsPerEpoch);
    while (!evaluationDue || evaluate(stop)) {
      if (done == firstStep + stageSteps) {
        finished.add(new StageResult(run.stage().name(), done, lastEvaluation, bestTop1Percent));
        return true;
      }
      if (stop.getAsBoolean()) {
        return false;
      }
      long number = done - firstStep + 1;
      double lr = run.lr(number);
      run.train(number, lr, number == stageSteps);
      done++;
      record(lr);
      if (!evaluationDue && checkpointDue()) {
        save();
      }
    }
    return false;
  }

  /**
   * Goes on with the next stage, from the checkpoint that ends this one: a run that is killed in
   * between comes here again and does the same.
   */
  private void nextStage() {
    if (savedStep != done) {
      save();
    }
    earlierFallbacks = gradientFallbacks();
    Map<String, float[]> values = new HashMap<>();
    for (State state : run.network().planner().states()) {
      if (state.dtype() == DType.F32) {
        values.put(state.name(), run.network().published(state));
      }
    }
    WeightTransfer.Source previous =
        WeightTransfer.Source.of(
            "stage " + run.stage().name(), run.network().planner(), values::get);
    run.close();
    run = null;
    open(index + 1);
    run.allocate();
    run.initialize(setup.seed(), previous, false);
    run.startImages(setup.seed(), index, 0);
    window.clear();
    epochSoFar.clear();
    lastEvaluation = new Metrics();
    bestTop1Percent = RunState.NO_BEST;
    bestStep = -1;
  }

  private long stageStep() {
    return done - firstStep;
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
    Metrics last = run.step().metrics();
    window.add(last);
    epochSoFar.add(last);
    progress.step(done, last, epochSoFar, lr);
    long stageStep = stageStep();
    if (stageStep % config.logEverySteps() == 0 || stageStep % stepsPerEpoch == 0) {
      ObjectNode fields =
          fields(window)
              .put("lr", lr)
              .put("grad_norm", run.step().gradNorm())
              .put("gradient_fallbacks", gradientFallbacks());
      List<Double> scale = run.step().lossScale();
      if (!scale.isEmpty()) {
        fields.put("loss_scale", scale.get(StepState.SCALE));
      }
      log("train", fields);
      window.clear();
    }
    if (stageStep % stepsPerEpoch == 0) {
      epochSoFar.clear();
      long epoch = stageStep / stepsPerEpoch;
      evaluationDue = epoch % config.evaluateEveryEpochs() == 0 || stageStep == stageSteps;
    }
  }

  /** Of the run so far; see {@link bireal.backend.Gradient}. */
  private long gradientFallbacks() {
    return earlierFallbacks + run.network().gradientFallbacks();
  }

  private ObjectNode fields(Metrics metrics) {
    ObjectNode fields = RunLog.fields();
    if (!run.stage().name().isEmpty()) {
      fields.put(RunState.STAGE, run.stage().name());
    }
    return fields
        .put("epoch", (double) stageStep() / stepsPerEpoch)
        .put("loss", metrics.loss())
        .put("top1", metrics.top1Percent())
        .put("top5", metrics.top5Percent())
        .put("images", metrics.images());
  }

  /** False if {@code stop} ended it; it is still due then, also for a run that resumes. */
  private boolean evaluate(BooleanSupplier stop) {
    Metrics metrics = run.evaluator().run(progress, stop);
    if (metrics == null) {
      return false;
    }
    evaluationDue = false;
    lastEvaluation = metrics;
    boolean best = metrics.top1Percent() > bestTop1Percent;
    bestStep = best ? done : bestStep;
    bestTop1Percent = Math.max(bestTop1Percent, metrics.top1Percent());
    log("eval", fields(metrics));
    progress.evaluated((int) (stageStep() / stepsPerEpoch), metrics, best);
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
            checkpoints.prune(config.keepCheckpoints(), stageEnds());
          });
    }
    return true;
  }

  private boolean checkpointDue() {
    long every = config.checkpointEverySteps() == 0 ? stepsPerEpoch : config.checkpointEverySteps();
    return stageStep() % every == 0;
  }

  /**
   * Steps whose checkpoints stay: what a researcher compares, and where a stage can start again.
   */
  private Set<Long> stageEnds() {
    return finished.stream().map(StageResult::lastStep).collect(Collectors.toSet());
  }

  private void save() {
    savedStep = -1; // also where an older state of this step is on disk
    write("the checkpoint was not written", this::saveCheckpoint);
    if (savedStep == done) {
      write(
          "old checkpoints were not deleted",
          () -> checkpoints.prune(config.keepCheckpoints(), stageEnds()));
    }
  }

  private void saveCheckpoint() {
    log.sync();
    RunState state =
        new RunState(
            done,
            run.stage().name(),
            stageStep(),
            List.copyOf(finished.subList(0, index)),
            window,
            epochSoFar,
            lastEvaluation,
            evaluationDue,
            bestTop1Percent,
            bestStep,
            gradientFallbacks(),
            run.step().lossScale(),
            setup.trajectory());
    lastCheckpoint =
        checkpoints.save(
            done,
            Map.of(
                MODEL,
                NetworkFiles.model(run.network(), done),
                OPTIMIZER,
                NetworkFiles.moments(run.network(), run.step().optimizer())),
            state.json(stepsPerEpoch, setup.seed()));
    savedStep = done;
    progress.saved(done, lastCheckpoint);
  }

  private int stageOf(Checkpoint checkpoint) {
    String name = RunState.of(checkpoint).stage();
    for (int i = 0; i < setup.stages().size(); i++) {
      if (setup.stages().get(i).name().equals(name)) {
        return i;
      }
    }
    throw new CheckpointException(
        checkpoint.folder()
            + " belongs to stage '"
            + name
            + "', the config has "
            + setup.stages().stream().map(Stage::name).toList());
  }

  private void requireSameSettings(Checkpoint checkpoint) {
    Map<String, String> saved = RunState.of(checkpoint).trajectory();
    List<String> differences = new ArrayList<>();
    TreeMap<String, String> both = new TreeMap<>(saved);
    both.putAll(setup.trajectory());
    for (String key : both.keySet()) {
      String was = saved.get(key);
      String now = setup.trajectory().get(key);
      boolean same = was == null ? setup.meantByAbsence().test(key, now) : was.equals(now);
      if (!same) {
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
  }

  private void restore(Checkpoint checkpoint) {
    RunState state = RunState.of(checkpoint);
    try (Safetensors model = checkpoint.tensors(MODEL)) {
      NetworkFiles.load(run.network(), model);
    }
    try (Safetensors moments = checkpoint.tensors(OPTIMIZER)) {
      NetworkFiles.loadMoments(run.network(), run.step().optimizer(), moments);
    }
    done = state.step();
    window.set(state.logWindow());
    epochSoFar.set(state.epochSoFar());
    lastEvaluation = state.lastEvaluation();
    evaluationDue = state.evaluationDue();
    bestTop1Percent = state.bestTop1Percent();
    bestStep = state.bestStep();
    earlierFallbacks = state.gradientFallbacks();
    run.step().startLossScale(state.lossScale());
    finished.addAll(state.stagesBefore());
    lastCheckpoint = checkpoint.folder();
    savedStep = done;
    if (bestStep == done && !evaluationDue) {
      checkpoints.markBest(
          done, bestTop1Percent); // a crash may have come between saving and marking
    }
  }

  /** Optimizer steps done. */
  public long step() {
    return done;
  }

  /** Of the stage at work. */
  public Network network() {
    return run.network();
  }

  private void closeRun(Throwable causeOrNull) {
    if (run == null) {
      return;
    }
    try {
      run.close();
    } catch (RuntimeException e) {
      if (causeOrNull == null) {
        throw e;
      }
      causeOrNull.addSuppressed(e);
    }
  }

  @Override
  public void close() {
    try {
      closeRun(null);
    } finally {
      opened.close();
    }
  }
}
