package bireal.optim;

import bireal.backend.Backend;
import bireal.backend.StepState;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
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
  private final Map<String, Tensor> moments = new LinkedHashMap<>();
  private final Update update;

  /**
   * Reserves the moments with {@code flat}, which makes a buffer like the parameters' of the given
   * name.
   */
  public Optimizer(
      Backend backend, OptimizerConfig config, Function<String, Tensor> flat, UpdateSpec spec) {
    this.backend = backend;
    this.config = config;
    List<String> names =
        switch (config.type()) {
          case ADAM -> List.of("exp_avg", "exp_avg_sq");
          case SGD -> List.of("momentum_buffer");
        };
    for (String name : names) {
      moments.put(name, flat.apply(name));
    }
    update = backend.planUpdate(spec);
  }

  public OptimizerConfig config() {
    return config;
  }

  /** Flat moments by PyTorch's names. */
  public Map<String, Tensor> moments() {
    return moments;
  }

  /** Once the memory is allocated, so that the first step takes none. */
  public void prepare() {
    update.prepare();
  }

  /**
   * The end of a step: judges the gradients, updates the parameters and what is derived from them,
   * and lets the running statistics follow; {@code workspace} is for {@link Backend#finiteNorm}.
   */
  public void step(StepState step, int microBatchCount, Tensor workspace) {
    backend.finiteNorm(update, step, workspace);
    switch (config.type()) {
      case ADAM ->
          backend.adam(
              update,
              moments.get("exp_avg"),
              moments.get("exp_avg_sq"),
              step,
              config.beta1(),
              config.beta2(),
              config.eps());
      case SGD ->
          backend.sgd(
              update, moments.get("momentum_buffer"), step, config.momentum(), config.form());
    }
    backend.batchNormCommit(update, step, microBatchCount);
  }

  @Override
  public void close() {
    update.close();
  }
}
