package bireal.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.StepState;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.tensor.Rng;
import bireal.tensor.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntToDoubleFunction;
import java.util.function.Supplier;

/** What the tests of blocks and networks share: configs, fills, values in published order. */
final class NetworkTesting {
  private NetworkTesting() {}

  static NetworkConfig config(
      NetworkConfig.Stem stem,
      int width,
      int classes,
      WeightGradient weightGradient,
      ActivationGradient activationGradient) {
    return config(
        NetworkConfig.Family.BIREALNET,
        18,
        stem,
        width,
        classes,
        NetworkConfig.Weights.AUTO,
        NetworkConfig.Nonlinearity.AUTO,
        weightGradient,
        activationGradient);
  }

  static NetworkConfig config(
      NetworkConfig.Family family,
      int depth,
      NetworkConfig.Stem stem,
      int width,
      int classes,
      NetworkConfig.Weights weights,
      NetworkConfig.Nonlinearity nonlinearity,
      WeightGradient weightGradient,
      ActivationGradient activationGradient) {
    return new NetworkConfig(
        family,
        depth,
        width,
        classes,
        stem,
        weights,
        nonlinearity,
        weightGradient,
        activationGradient,
        NetworkConfig.Init.KAIMING);
  }

  static NetworkConfig react(NetworkConfig.Weights weights, int width, int classes) {
    return config(
        NetworkConfig.Family.REACTNET,
        18,
        width == 64 ? NetworkConfig.Stem.IMAGENET : NetworkConfig.Stem.CIFAR,
        width,
        classes,
        weights,
        NetworkConfig.Nonlinearity.AUTO,
        WeightGradient.CLIPPED,
        ActivationGradient.APPROX_SIGN);
  }

  static List<Supplier<Backend>> backends() {
    return List.of(CpuBackend::reference, () -> CpuBackend.open(1), () -> CpuBackend.open(3));
  }

  /** Mean smoothed loss of the network's images; leaves the gradient of the logits behind. */
  static double loss(Network network, int n) {
    Planner planner = network.planner();
    network.forward(n, Pass.TRAIN);
    planner
        .backend()
        .softmaxXent(
            n,
            planner.step(),
            network.logitsGradient(),
            network.logits(),
            network.labels(),
            null,
            0.1,
            1,
            1.0 / n,
            GradMode.OVERWRITE,
            planner.workspace());
    return Tensors.doubles(planner.backend(), planner.step().metrics())[StepState.LOSS_SUM] / n;
  }

  static double[] fill(int count, IntToDoubleFunction formula) {
    double[] values = new double[count];
    Arrays.setAll(values, i -> (double) (float) formula.applyAsDouble(i));
    return values;
  }

  /** Uniform in +-bound, exact in float32. */
  static double[] random(long seed, int stream, int count, double bound) {
    return fill(count, i -> bound * (2 * Rng.uniform(Rng.bits(seed, stream), i) - 1));
  }

  static double[] doubles(float[] values) {
    double[] wide = new double[values.length];
    Arrays.setAll(wide, i -> values[i]);
    return wide;
  }

  static float[] floats(double[] values) {
    float[] narrow = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      narrow[i] = (float) values[i];
    }
    return narrow;
  }

  static void set(Backend backend, State state, double[] published) {
    Tensors.write(backend, state.value(), state.fromPublished(floats(published)));
  }

  /** Writes NCHW values into the first n images of an NHWC tensor; the others become NaN. */
  static void writeImages(Backend backend, Tensor tensor, int n, double[] nchw) {
    float[] values = new float[(int) tensor.shape().count()];
    Arrays.fill(values, Float.NaN);
    int C = (int) tensor.shape().dim(3);
    int area = (int) (tensor.shape().dim(1) * tensor.shape().dim(2));
    assertEquals(n * area * C, nchw.length);
    for (int i = 0; i < nchw.length; i++) {
      values[(i / area / C * area + i % area) * C + i / area % C] = (float) nchw[i];
    }
    Tensors.write(backend, tensor, values);
  }

  /** The first n images of an NHWC tensor in NCHW order. */
  static double[] readImages(Backend backend, Tensor tensor, int n) {
    float[] values = Tensors.floats(backend, tensor);
    int C = (int) tensor.shape().dim(3);
    int area = (int) (tensor.shape().dim(1) * tensor.shape().dim(2));
    double[] nchw = new double[n * area * C];
    Arrays.setAll(nchw, i -> values[(i / area / C * area + i % area) * C + i / area % C]);
    return nchw;
  }

  /**
   * Each within {@code tolerance} of its own size plus that of the largest, or of {@code terms}:
   * sums of terms of both signs carry the rounding error of the terms.
   */
  static void assertClose(
      String name, double[] expected, double[] got, double tolerance, double terms) {
    double largest = Arrays.stream(expected).map(Math::abs).max().orElseThrow();
    largest = Math.max(largest, terms);
    for (int i = 0; i < expected.length; i++) {
      assertTrue(
          Double.isFinite(got[i])
              && Math.abs(got[i] - expected[i]) <= tolerance * (Math.abs(expected[i]) + largest),
          name + " " + i + ": expected " + expected[i] + ", got " + got[i]);
    }
  }
}
