package bireal.train;

import bireal.backend.Backend;
import bireal.backend.Tensors;
import bireal.nn.Network;
import bireal.nn.Parameter;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.optim.Optimizer;
import bireal.tensor.DType;
import bireal.tensor.Tensor;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Networks and optimizer moments to and from named tensors: published names, published (OIHW)
 * order.
 */
public final class NetworkFiles {
  private NetworkFiles() {}

  /**
   * Parameters and statistics as a state_dict holds them. {@code steps} is the value of the batch
   * counters.
   */
  static List<NamedTensor> model(Network network, long steps) {
    List<NamedTensor> tensors = new ArrayList<>();
    for (State state : network.planner().states()) {
      tensors.add(
          state.dtype() == DType.I64
              ? NamedTensor.ofLongs(state.name(), state.publishedDims(), steps)
              : NamedTensor.ofFloats(
                  state.name(), state.publishedDims(), network.published(state)));
    }
    return tensors;
  }

  /**
   * Writes a file of weights without a run; batch counters are those of {@code like}, the file that
   * the network was loaded from.
   */
  public static void save(Network network, Safetensors like, Path file) {
    List<NamedTensor> tensors = new ArrayList<>();
    for (NamedTensor tensor : model(network, 0)) {
      tensors.add(tensor.dtype().equals("I64") ? like.read(tensor.name()) : tensor);
    }
    try {
      Safetensors.write(file, tensors, Map.of("format", "pt"));
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + file, e);
    }
  }

  /** Moments, named {@code moment.parameter}. */
  static List<NamedTensor> moments(Network network, Optimizer optimizer) {
    Backend backend = network.planner().backend();
    List<NamedTensor> tensors = new ArrayList<>();
    for (Map.Entry<String, Tensor> moment : optimizer.moments().entrySet()) {
      for (Parameter parameter : network.planner().parameters()) {
        float[] memory = Tensors.floats(backend, Planner.viewLike(moment.getValue(), parameter));
        tensors.add(
            NamedTensor.ofFloats(
                moment.getKey() + "." + parameter.name(),
                parameter.publishedDims(),
                parameter.toPublished(memory)));
      }
    }
    return tensors;
  }

  /**
   * Fills a network from a file with exactly its tensors. Throws CheckpointException, before
   * anything is changed, that lists what is missing, foreign or of another shape.
   */
  public static void load(Network network, Safetensors file) {
    List<String> problems = new ArrayList<>();
    Set<String> foreign = new TreeSet<>(file.names());
    for (State state : network.planner().states()) {
      foreign.remove(state.name());
      check(
          problems,
          file,
          state.name(),
          state.publishedDims(),
          state.dtype() == DType.I64 ? "I64" : "F32");
    }
    refuse(problems, foreign, file);
    for (State state : network.planner().states()) {
      if (state.dtype() == DType.F32) {
        network.setPublished(state, file.read(state.name()).floats());
      }
    }
    network.refresh();
  }

  /** As {@link #load}, for the moments of the optimizer. */
  static void loadMoments(Network network, Optimizer optimizer, Safetensors file) {
    List<String> problems = new ArrayList<>();
    Set<String> foreign = new TreeSet<>(file.names());
    for (String moment : optimizer.moments().keySet()) {
      for (Parameter parameter : network.planner().parameters()) {
        foreign.remove(moment + "." + parameter.name());
        check(problems, file, moment + "." + parameter.name(), parameter.publishedDims(), "F32");
      }
    }
    refuse(problems, foreign, file);
    Backend backend = network.planner().backend();
    for (Map.Entry<String, Tensor> moment : optimizer.moments().entrySet()) {
      for (Parameter parameter : network.planner().parameters()) {
        float[] published = file.read(moment.getKey() + "." + parameter.name()).floats();
        Tensors.write(
            backend,
            Planner.viewLike(moment.getValue(), parameter),
            parameter.fromPublished(published));
      }
    }
  }

  private static void check(
      List<String> problems, Safetensors file, String name, long[] dims, String dtype) {
    if (!file.names().contains(name)) {
      problems.add("missing " + name);
    } else if (!Arrays.equals(file.shape(name), dims)) {
      problems.add(
          name
              + " has shape "
              + Arrays.toString(file.shape(name))
              + ", the network needs "
              + Arrays.toString(dims));
    } else if (!file.dtype(name).equals(dtype)) {
      problems.add(name + " has type " + file.dtype(name) + ", the network needs " + dtype);
    }
  }

  private static void refuse(List<String> problems, Set<String> foreign, Safetensors file) {
    for (String name : foreign) {
      problems.add("the network has no " + name);
    }
    if (!problems.isEmpty()) {
      int shown = Math.min(5, problems.size());
      throw new CheckpointException(
          file.path()
              + " belongs to another network: "
              + String.join("; ", problems.subList(0, shown))
              + (problems.size() > shown ? "; and " + (problems.size() - shown) + " more" : "")
              + ". Use the config that it was trained with");
    }
  }
}
