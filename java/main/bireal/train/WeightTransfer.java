package bireal.train;

import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.tensor.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Function;

/**
 * Which tensor of a source fills which tensor of a network, by their published names. Every
 * difference between the two must have been named in a {@link StartConfig}. Two spellings are the
 * same tensor: a prefix {@code module.} on all names (PyTorch's DataParallel), and {@code weight}
 * [O,I,H,W] beside the flat {@code weights} [n,1] of a binary convolution, which hold the same
 * values in the same order. Counters of batches (int64) are not transferred.
 */
final class WeightTransfer {
  private static final String PARALLEL = "module.";

  /**
   * Tensors by name.
   *
   * @param what for messages
   * @param shapes of the float tensors, in their order
   * @param read values of one of them, in the published order
   */
  record Source(String what, Map<String, long[]> shapes, Function<String, float[]> read) {
    static Source of(Safetensors file) {
      boolean parallel =
          !file.names().isEmpty() && file.names().stream().allMatch(n -> n.startsWith(PARALLEL));
      int cut = parallel ? PARALLEL.length() : 0;
      Map<String, long[]> shapes = new LinkedHashMap<>();
      for (String name : file.names()) {
        if (file.dtype(name).equals("F32")) {
          shapes.put(name.substring(cut), file.shape(name));
        } else if (!file.dtype(name).equals("I64")) {
          throw new CheckpointException(
              file.path()
                  + ": "
                  + name
                  + " has type "
                  + file.dtype(name)
                  + "; only float32 weights (F32) can be taken over");
        }
      }
      return new Source(
          file.path().toString(),
          shapes,
          name -> file.read((parallel ? PARALLEL : "") + name).floats());
    }

    /** The network's own names and shapes; {@code read} may be null while only planning. */
    static Source of(String what, Planner planner, Function<String, float[]> read) {
      Map<String, long[]> shapes = new LinkedHashMap<>();
      for (State state : planner.states()) {
        if (state.dtype() == DType.F32) {
          shapes.put(state.name(), state.publishedDims());
        }
      }
      return new Source(what, shapes, read);
    }
  }

  private final Source source;
  private final Map<State, String> pairs = new LinkedHashMap<>();

  /**
   * Throws CheckpointException listing what does not fit, and IllegalArgumentException for a
   * pattern of {@code start} that matches nothing.
   */
  WeightTransfer(Planner target, Source source, StartConfig start) {
    this.source = source;
    NamePatterns fresh = new NamePatterns("start.fresh", start.fresh());
    NamePatterns dropped = new NamePatterns("start.dropped", start.dropped());
    List<String> problems = new ArrayList<>();
    Set<String> left = new TreeSet<>(source.shapes().keySet());
    List<String> names = new ArrayList<>();
    for (State state : target.states()) {
      if (state.dtype() != DType.F32) {
        continue;
      }
      names.add(state.name());
      String found = spelling(state.name());
      if (fresh.matches(state.name())) {
        left.remove(found);
        continue;
      }
      long[] dims = source.shapes().get(found);
      if (dims == null || dropped.matches(found)) {
        problems.add("it lacks " + state.name() + " (start.fresh)");
      } else if (!Arrays.equals(dims, state.publishedDims())
          && (found.equals(state.name()) || !sameCount(dims, state.publishedDims()))) {
        problems.add(
            state.name()
                + " has shape "
                + Arrays.toString(dims)
                + " there, the network needs "
                + Arrays.toString(state.publishedDims()));
        left.remove(found);
      } else {
        pairs.put(state, found);
        left.remove(found);
      }
    }
    for (String name : left) {
      if (!dropped.matches(name)) {
        problems.add("the network has no " + name + " (start.dropped)");
      }
    }
    if (!problems.isEmpty()) {
      int shown = Math.min(5, problems.size());
      throw new CheckpointException(
          source.what()
              + " does not fit the network: "
              + String.join("; ", problems.subList(0, shown))
              + (problems.size() > shown ? "; and " + (problems.size() - shown) + " more" : "")
              + ". Use weights of the same network, depth and width; where the difference is meant,"
              + " name these tensors in the key in brackets");
    }
    fresh.requireAllUsed(names);
    dropped.requireAllUsed(source.shapes().keySet());
  }

  /** The source's spelling of a name of the network. */
  private String spelling(String name) {
    if (source.shapes().containsKey(name)) {
      return name;
    }
    String other =
        name.endsWith(".weights")
            ? name.substring(0, name.length() - 1)
            : name.endsWith(".weight") ? name + "s" : name;
    return source.shapes().containsKey(other) ? other : name;
  }

  private static boolean sameCount(long[] a, long[] b) {
    return Arrays.stream(a).reduce(1, (x, y) -> x * y)
        == Arrays.stream(b).reduce(1, (x, y) -> x * y);
  }

  /** Fills the network; {@link Network#refresh} must follow. */
  void fill(Network network) {
    pairs.forEach((state, name) -> network.setPublished(state, source.read().apply(name)));
  }
}
