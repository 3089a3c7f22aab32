package bireal.train;

import bireal.backend.Gradient;
import bireal.backend.Precision;

/**
 * Length and bookkeeping of a run.
 *
 * @param epochs passes over the training images
 * @param batch images of an optimizer step
 * @param microBatch images of one forward and backward pass; a step accumulates ceil(batch /
 *     microBatch) of them
 * @param gradient arithmetic of the binary convolutions' backward passes
 * @param precision type of activations and their gradients
 * @param labelSmoothing share of the target spread over all classes, [0, 1)
 * @param evaluateEveryEpochs evaluation on the test images; the last epoch always ends with one
 * @param checkpointEverySteps 0: at the end of each epoch
 * @param keepCheckpoints newest ones kept, beside the best one
 * @param logEverySteps steps a line of log.jsonl covers
 * @param onCheckpointFailure what follows where a checkpoint or a log line cannot be written
 */
public record TrainConfig(
    int epochs,
    int batch,
    int microBatch,
    Gradient gradient,
    Precision precision,
    double labelSmoothing,
    int evaluateEveryEpochs,
    int checkpointEverySteps,
    int keepCheckpoints,
    int logEverySteps,
    OnCheckpointFailure onCheckpointFailure) {
  /** STOP ends the run; CONTINUE warns, and tries again when the next checkpoint is due. */
  public enum OnCheckpointFailure {
    STOP,
    CONTINUE
  }

  public TrainConfig {
    check(epochs >= 1, "epochs must be >= 1, got " + epochs);
    check(batch >= 1, "batch must be >= 1, got " + batch);
    check(
        microBatch >= 1 && microBatch <= batch,
        "micro_batch must be in 1..batch (" + batch + "), got " + microBatch);
    check(
        labelSmoothing >= 0 && labelSmoothing < 1,
        "label_smoothing must be in [0, 1), got " + labelSmoothing);
    check(
        evaluateEveryEpochs >= 1, "evaluate_every_epochs must be >= 1, got " + evaluateEveryEpochs);
    check(
        checkpointEverySteps >= 0,
        "checkpoint_every_steps must be >= 0, got " + checkpointEverySteps);
    check(keepCheckpoints >= 1, "keep_checkpoints must be >= 1, got " + keepCheckpoints);
    check(logEverySteps >= 1, "log_every_steps must be >= 1, got " + logEverySteps);
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
