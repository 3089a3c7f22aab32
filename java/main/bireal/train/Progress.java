package bireal.train;

import java.nio.file.Path;

/**
 * What a long run tells whoever watches it. Called from the training thread; must return quickly.
 */
public interface Progress {
  /** A silent watcher. */
  Progress NONE = new Progress() {};

  /** The run begins after {@code step} finished steps of {@code totalSteps}. */
  default void started(long step, long totalSteps, long stepsPerEpoch) {}

  /**
   * A step is done; {@code epochSoFar} sums over the current epoch. Both are overwritten by the
   * next step.
   */
  default void step(long step, Metrics last, Metrics epochSoFar, double lr) {}

  /** An evaluation has done {@code images} of {@code total}. */
  default void evaluating(long images, long total) {}

  /** An evaluation is complete; {@code epoch} counts from 1. */
  default void evaluated(int epoch, Metrics metrics, boolean best) {}

  /** A checkpoint is safe on disk. */
  default void saved(long step, Path folder) {}

  /** A checkpoint or log line of {@code step} could not be written, and the run goes on. */
  default void notSaved(long step, String reason) {}
}
