package bireal.train;

import bireal.runtime.InputException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Finds the weights that a user names. */
public final class WeightFiles {
  /** The file of a checkpoint that holds the network. */
  static final String MODEL = "model.safetensors";

  private static final String CHECKPOINTS = "checkpoints";

  private WeightFiles() {}

  /**
   * Weights and where they come from.
   *
   * @param stage of the run that made them; empty if unknown, or if that run has one stage
   */
  public record Found(Safetensors file, String stage) {}

  /**
   * Opens a safetensors file, that of a checkpoint, or that of a run folder's best checkpoint, else
   * its newest; the caller closes it. {@code key} says in errors who named it.
   */
  public static Found open(String key, Path path) {
    if (Files.isRegularFile(path)) {
      return new Found(CheckpointStore.openTensors(path), "");
    }
    if (!Files.isDirectory(path)) {
      throw new InputException(
          key
              + ": there is no "
              + path
              + "; name a run folder, a checkpoint or a safetensors file, relative to the folder"
              + " the command runs in");
    }
    Checkpoint checkpoint;
    if (Files.isDirectory(path.resolve(CHECKPOINTS))) {
      CheckpointStore store = CheckpointStore.forReading(path.resolve(CHECKPOINTS));
      checkpoint =
          store
              .best()
              .or(store::latest)
              .orElseThrow(
                  () ->
                      new InputException(key + ": " + path + " has no checkpoint; train it first"));
    } else {
      checkpoint = CheckpointStore.open(path);
    }
    return new Found(
        checkpoint.tensors(MODEL), checkpoint.progress().path(RunState.STAGE).asText(""));
  }
}
