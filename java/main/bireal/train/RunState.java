package bireal.train;

import static bireal.train.CheckpointException.quote;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * How far a run is, beside its tensors: {@code progress.json} of its checkpoints.
 *
 * @param step optimizer steps done
 * @param stage it is in; empty if the run is one stage without a name
 * @param stageStep optimizer steps of that stage
 * @param stagesBefore how those before ended
 * @param logWindow sums of the log line that is not written yet
 * @param epochSoFar sums of the epoch that is not complete
 * @param lastEvaluation 0 images if there was none
 * @param evaluationDue whether the epoch that ended with this step is still to be evaluated
 * @param bestTop1Percent of the test images, {@link #NO_BEST} before the first evaluation
 * @param bestStep the step that reached it; -1 before the first evaluation
 * @param gradientFallbacks see {@link bireal.backend.Gradient}
 * @param lossScale see {@link TrainStep#lossScale}
 * @param trajectory every setting that the numbers depend on, by key
 */
public record RunState(
    long step,
    String stage,
    long stageStep,
    List<Trainer.StageResult> stagesBefore,
    Metrics logWindow,
    Metrics epochSoFar,
    Metrics lastEvaluation,
    boolean evaluationDue,
    double bestTop1Percent,
    long bestStep,
    long gradientFallbacks,
    List<Double> lossScale,
    Map<String, String> trajectory) {
  static final double NO_BEST = -1;

  /** Key of the stage, here and in the log; absent where a run is one stage without a name. */
  static final String STAGE = "stage";

  private static final String FIX =
      "the checkpoint was changed, or another version of bireal wrote it: use another one";

  /** The file's content; epoch and seed are for people. */
  ObjectNode json(long stepsPerEpoch, long seed) {
    ObjectNode json = StrictJson.newObject();
    json.put("step", step)
        .put("epoch", stageStep / stepsPerEpoch)
        .put("batch_in_epoch", stageStep % stepsPerEpoch);
    if (!stage.isEmpty()) {
      json.put(STAGE, stage).put("stage_step", stageStep);
      ArrayNode before = json.putArray("stages_before");
      for (Trainer.StageResult result : stagesBefore) {
        ObjectNode one =
            before
                .addObject()
                .put(STAGE, result.name())
                .put("last_step", result.lastStep())
                .put("best_top1_percent", result.bestTop1Percent());
        put(one.putObject("last_evaluation"), result.lastEvaluation());
      }
    }
    json.put("seed", seed).put("best_top1_percent", bestTop1Percent).put("best_step", bestStep);
    put(json.putObject("log_window"), logWindow);
    put(json.putObject("epoch_so_far"), epochSoFar);
    put(json.putObject("last_evaluation"), lastEvaluation);
    json.put("evaluation_due", evaluationDue).put("gradient_fallbacks", gradientFallbacks);
    if (!lossScale.isEmpty()) {
      ArrayNode scale = json.putArray("loss_scale");
      for (Double value : lossScale) {
        scale.add(Double.toHexString(value));
      }
    }
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
    String stage = "";
    long stageStep = step;
    List<Trainer.StageResult> before = new ArrayList<>();
    if (json.has(STAGE)) {
      stage = reader.text(json, "", STAGE);
      stageStep = reader.count(json, "", "stage_step");
      if (!(json.path("stages_before") instanceof ArrayNode ended) || stageStep > step) {
        throw reader.bad(
            STAGE, quote(stage), "with stage_step in 0.." + step + " and a list stages_before");
      }
      for (JsonNode one : ended) {
        if (!(one instanceof ObjectNode object) || !object.path("best_top1_percent").isNumber()) {
          throw reader.bad("stages_before", quote(one.toString()), "how a stage ended");
        }
        before.add(
            new Trainer.StageResult(
                reader.text(object, "stages_before.", STAGE),
                reader.count(object, "stages_before.", "last_step"),
                reader.metrics(object, "last_evaluation"),
                object.path("best_top1_percent").doubleValue()));
      }
    }
    return new RunState(
        step,
        stage,
        stageStep,
        List.copyOf(before),
        reader.metrics(json, "log_window"),
        reader.metrics(json, "epoch_so_far"),
        reader.metrics(json, "last_evaluation"),
        due.booleanValue(),
        best.doubleValue(),
        bestStep.longValue(),
        reader.count(json, "", "gradient_fallbacks"),
        reader.lossScale(json),
        trajectory);
  }

  private record Reader(Path file) {
    ObjectNode object(ObjectNode node, String key) {
      if (node.path(key) instanceof ObjectNode object) {
        return object;
      }
      throw bad(key, quote(node.path(key).toString()), "an object");
    }

    String text(ObjectNode node, String place, String key) {
      if (!node.path(key).isTextual()) {
        throw bad(place + key, quote(node.path(key).toString()), "text");
      }
      return node.path(key).textValue();
    }

    long count(ObjectNode node, String place, String key) {
      JsonNode value = node.path(key);
      if (!value.isIntegralNumber() || !value.canConvertToLong() || value.longValue() < 0) {
        throw bad(place + key, quote(value.toString()), "a whole number in 0..2^63-1");
      }
      return value.longValue();
    }

    List<Double> lossScale(ObjectNode json) {
      if (!json.has("loss_scale")) {
        return List.of();
      }
      JsonNode list = json.path("loss_scale");
      List<Double> values = new ArrayList<>();
      for (int i = 0; i < list.size(); i++) {
        try {
          values.add(Double.parseDouble(list.path(i).asText()));
        } catch (NumberFormatException e) {
          values.add(Double.NaN);
        }
      }
      // Scale and what undoes it lie in [2^-24, 2^24]; the counters are whole numbers.
      boolean good = values.size() == 4;
      for (int i = 0; good && i < 4; i++) {
        double value = values.get(i);
        good =
            i < 2
                ? value >= 0x1p-24 && value <= 0x1p24
                : value >= 0 && value == Math.rint(value) && value < 0x1p53;
      }
      if (!good) {
        throw bad("loss_scale", quote(list.toString()), "scale, 1/scale and two counts");
      }
      return values;
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
