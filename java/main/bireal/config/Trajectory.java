package bireal.config;

import java.lang.reflect.RecordComponent;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * The settings that the numbers of a run depend on. A checkpoint keeps them; resuming it with
 * others would silently train something else, so it is refused. What is left out may change between
 * two parts of a run.
 */
public final class Trajectory {
  private static final Set<String> FREE =
      Set.of(
          "name",
          "backend",
          "threads",
          "runs_folder",
          "data.path",
          "data.loader_threads",
          "data.batches_ahead",
          "data.stall_limit_seconds",
          "train.evaluate_every_epochs",
          "train.checkpoint_every_steps",
          "train.keep_checkpoints",
          "train.log_every_steps",
          "train.on_checkpoint_failure");

  private Trajectory() {}

  /** Values by key path, as configs spell them. */
  public static Map<String, String> of(RunConfig config) {
    Map<String, String> values = new TreeMap<>();
    collect("", config, values);
    values.keySet().removeAll(FREE);
    return values;
  }

  private static void collect(String prefix, Object value, Map<String, String> values) {
    if (!(value instanceof Record)) {
      values.put(
          prefix,
          value instanceof Enum<?> choice ? Values.spelling(choice) : String.valueOf(value));
      return;
    }
    for (RecordComponent component : value.getClass().getRecordComponents()) {
      String key = Values.key(component);
      try {
        collect(
            prefix.isEmpty() ? key : prefix + "." + key,
            component.getAccessor().invoke(value),
            values);
      } catch (ReflectiveOperationException e) {
        throw new IllegalStateException("cannot read " + component, e);
      }
    }
  }
}
