package bireal.config;

import bireal.train.Stage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A run: its stages in their order, by name. A config without {@code stages} is one stage, whose
 * name is empty. Name, seed, backend, threads and folder are the same in all of them. Immutable.
 */
public record Recipe(Map<String, RunConfig> stages) {
  /** {@code stages} has one entry or more, in the order in which they are trained. */
  public Recipe {
    stages = Collections.unmodifiableMap(new LinkedHashMap<>(stages));
  }

  /** Whether the config names its stages. */
  public boolean staged() {
    return !stages.containsKey("");
  }

  /** The only stage, or the last one. */
  public RunConfig last() {
    List<RunConfig> all = List.copyOf(stages.values());
    return all.get(all.size() - 1);
  }

  /** Throws ConfigException with the names that there are. */
  public RunConfig stage(String name) {
    RunConfig config = stages.get(name);
    if (config == null) {
      throw new ConfigException(
          Place.of(name()),
          "stages",
          staged()
              ? "has no stage " + Values.quote(name) + "; its stages are " + names()
              : "is not there: this run is one stage, without a name, and not "
                  + Values.quote(name));
    }
    return config;
  }

  public List<String> names() {
    return List.copyOf(stages.keySet());
  }

  public String name() {
    return last().name();
  }

  public long seed() {
    return last().seed();
  }

  public BackendKind backend() {
    return last().backend();
  }

  public int device() {
    return last().device();
  }

  public boolean cudaGraphs() {
    return last().cudaGraphs();
  }

  public int threads() {
    return last().threads();
  }

  public String runsFolder() {
    return last().runsFolder();
  }

  /** As the trainer takes them. */
  public List<Stage> toTrain() {
    List<Stage> list = new ArrayList<>();
    stages.forEach((name, config) -> list.add(config.stage(name)));
    return list;
  }
}
