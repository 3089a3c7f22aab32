package bireal.optim;

import bireal.backend.Backend;
import bireal.backend.Segments;
import bireal.backend.StepState;
import bireal.tensor.Tensor;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/**
 * Turns the flat gradient into new parameters, with the rate and step number of {@link StepState};
 * does nothing while the step is marked as not finite. Its moments are flat buffers like the
 * parameters'.
 */
public final class Optimizer implements AutoCloseable {
  private final Backend backend;
  private final OptimizerConfig config;
  private final Tensor parameters;
  private final Tensor gradients;
  private final Map<String, Tensor> moments = new LinkedHashMap<>();
  private final Segments segments;

  /**
   * Reserves the moments with {@code flat}, which makes a buffer like the parameters' of the given
   * name.
   */
  public Optimizer(
      Backend backend,
      OptimizerConfig config,
      Tensor parameters,
      Tensor gradients,
      Function<String, Tensor> flat,
      List<Segments.Segment> trained) {
    this.backend = backend;
    this.config = config;
    this.parameters = parameters;
    this.gradients = gradients;
    List<String> names =
        switch (config.type()) {
          case ADAM -> List.of("exp_avg", "exp_avg_sq");
          case SGD -> List.of("momentum_buffer");
        };
    for (String name : names) {
      moments.put(name, flat.apply(name));
    }
    segments = new Segments(backend, trained, parameters.shape().count());
  }

  public OptimizerConfig config() {
    return config;
  }

  /** Flat moments by PyTorch's names. */
  public Map<String, Tensor> moments() {
    return moments;
  }

  /** One update. */
  public void step(StepState step) {
    switch (config.type()) {
      case ADAM ->
          backend.adam(
              parameters,
              moments.get("exp_avg"),
              moments.get("exp_avg_sq"),
              gradients,
              segments,
              step,
              config.beta1(),
              config.beta2(),
              config.eps());
      case SGD ->
          backend.sgd(
              parameters,
              moments.get("momentum_buffer"),
              gradients,
              segments,
              step,
              config.momentum(),
              config.form());
    }
  }

  @Override
  public void close() {
    segments.close();
  }
}
