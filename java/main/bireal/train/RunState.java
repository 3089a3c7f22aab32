package bireal.train;

import static bireal.train.CheckpointException.quote;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;

/**
 * How far a run is, beside its tensors: {@code progress.json} of its checkpoints.
 *
 * @param step optimizer steps done
 * @param logWindow sums of the log line that is not written yet
 * @param epochSoFar sums of the epoch that is not complete
 * @param lastEvaluation 0 images if there was none
 * @param evaluationDue whether the epoch that ended with this step is still to be evaluated
 * @param bestTop1Percent of the test images, {@link #NO_BEST} before the first evaluation
 * @param bestStep the step that reached it; -1 before the first evaluation
 * @param gradientFallbacks see {@link bireal.backend.Gradient}
 * @param trajectory every setting that the numbers depend on, by key
 */
public record RunState(
    long step,
    Metrics logWindow,
    Metrics epochSoFar,
    Metrics lastEvaluation,
    boolean evaluationDue,
    double bestTop1Percent,
    long bestStep,
    long gradientFallbacks,
    Map<String, String> trajectory) {
  static final double NO_BEST = -1;

  private static final String FIX =
      "the checkpoint was changed, or another version of bireal wrote it: use another one";

  /** The file's content; epoch and seed are for people. */
  ObjectNode json(long stepsPerEpoch, long seed) {
    ObjectNode json = StrictJson.newObject();
    json.put("step", step)
        .put("epoch", step / stepsPerEpoch)
        .put("batch_in_epoch", step % stepsPerEpoch)
        .put("seed", seed)
        .put("best_top1_percent", bestTop1Percent)
        .put("best_step", bestStep);
    put(json.putObject("log_window"), logWindow);
    put(json.putObject("epoch_so_far"), epochSoFar);
    put(json.putObject("last_evaluation"), lastEvaluation);
    json.put("evaluation_due", evaluationDue).put("gradient_fallbacks", gradientFallbacks);
    ObjectNode settings = json.putObject("config");
    new TreeMap<>(trajectory).forEach(settings::put);
    return json;
  }

  private static void put(ObjectNode node, Metrics metrics) {
    // The sum as a hexadecimal double: a resume must continue it to the bit.
    node.put("loss_sum", Double.toHexString(metrics.lossSum()))
        .put("top1", metrics.top1())
        .put("top5", metrics.top5())
        .put("images", metrics.images());
  }

  /** Throws CheckpointException, naming file and key, if something is missing or impossible. */
  public static RunState of(Checkpoint checkpoint) {
    Reader reader = new Reader(checkpoint.folder().resolve(Checkpoint.PROGRESS));
    ObjectNode json = checkpoint.progress();
    long step = reader.count(json, "", "step");
    if (step != checkpoint.step()) {
      throw reader.bad("step", Long.toString(step), "the manifest's " + checkpoint.step());
    }
    JsonNode best = json.path("best_top1_percent");
    boolean percent =
        best.isNumber()
            && (best.doubleValue() == NO_BEST
                || (best.doubleValue() >= 0 && best.doubleValue() <= 100));
    if (!percent) {
      throw reader.bad(
          "best_top1_percent", quote(best.toString()), "a number in 0..100, or " + NO_BEST);
    }
    JsonNode bestStep = json.path("best_step");
    if (!bestStep.canConvertToLong()
        || !bestStep.isIntegralNumber()
        || bestStep.longValue() < -1
        || bestStep.longValue() > step) {
      throw reader.bad("best_step", quote(bestStep.toString()), "a whole number in -1.." + step);
    }
    JsonNode due = json.path("evaluation_due");
    if (!due.isBoolean()) {
      throw reader.bad("evaluation_due", quote(due.toString()), "true or false");
    }
    Map<String, String> trajectory = new TreeMap<>();
    for (Map.Entry<String, JsonNode> setting : reader.object(json, "config").properties()) {
      if (!setting.getValue().isTextual()) {
        throw reader.bad(
            "config key " + quote(setting.getKey()), quote(setting.getValue().toString()), "text");
      }
      trajectory.put(setting.getKey(), setting.getValue().textValue());
    }
    return new RunState(
        step,
        reader.metrics(json, "log_window"),
        reader.metrics(json, "epoch_so_far"),
        reader.metrics(json, "last_evaluation"),
        due.booleanValue(),
        best.doubleValue(),
        bestStep.longValue(),
        reader.count(json, "", "gradient_fallbacks"),
        trajectory);
  }

  private record Reader(Path file) {
    ObjectNode object(ObjectNode node, String key) {
      if (node.path(key) instanceof ObjectNode object) {
        return object;
      }
      throw bad(key, quote(node.path(key).toString()), "an object");
    }

    long count(ObjectNode node, String place, String key) {
      JsonNode value = node.path(key);
      if (!value.isIntegralNumber() || !value.canConvertToLong() || value.longValue() < 0) {
        throw bad(place + key, quote(value.toString()), "a whole number in 0..2^63-1");
      }
      return value.longValue();
    }

    Metrics metrics(ObjectNode json, String key) {
      ObjectNode node = object(json, key);
      String place = key + ".";
      JsonNode loss = node.path("loss_sum");
      double lossSum;
      try {
        lossSum = Double.parseDouble(loss.isTextual() ? loss.textValue() : "");
      } catch (NumberFormatException e) {
        throw bad(place + "loss_sum", quote(loss.toString()), "a hexadecimal double as text");
      }
      return new Metrics(
          lossSum,
          count(node, place, "top1"),
          count(node, place, "top5"),
          count(node, place, "images"));
    }

    CheckpointException bad(String place, String found, String expected) {
      return CheckpointException.at(file, place, found, expected, FIX);
    }
  }
}
