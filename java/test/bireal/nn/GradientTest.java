package bireal.nn;

import static bireal.nn.NetworkTesting.backends;
import static bireal.nn.NetworkTesting.config;
import static bireal.nn.NetworkTesting.doubles;
import static bireal.nn.NetworkTesting.floats;
import static bireal.nn.NetworkTesting.loss;
import static bireal.nn.NetworkTesting.random;
import static bireal.nn.NetworkTesting.react;
import static bireal.nn.NetworkTesting.readImages;
import static bireal.nn.NetworkTesting.set;
import static bireal.nn.NetworkTesting.writeImages;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Gradients against finite differences of the loss, where it is smooth: behind the last sign of a
 * network, and in blocks without one.
 */
class GradientTest {
  /** A network, and parameters of it behind its last sign, which move the loss smoothly. */
  private record Smooth(NetworkConfig config, List<String> parameters) {}

  static List<Smooth> smooth() {
    List<String> react = List.of("fc.weight", "layer4.3.prelu.weight", "layer4.3.move2.bias");
    return List.of(
        new Smooth(
            family(NetworkConfig.Family.BIREALNET, 18, NetworkConfig.Nonlinearity.AUTO),
            List.of("fc.weight", "fc.bias", "layer4.3.bn1.weight", "layer4.3.bn1.bias")),
        new Smooth(react(NetworkConfig.Weights.BINARY, 8, 5), react),
        new Smooth(react(NetworkConfig.Weights.REAL, 8, 5), react),
        new Smooth(
            family(NetworkConfig.Family.XNORNET, 18, NetworkConfig.Nonlinearity.AUTO),
            List.of("fc.weight", "final.0.weight")),
        new Smooth(
            family(NetworkConfig.Family.BIREALNET, 50, NetworkConfig.Nonlinearity.AUTO),
            List.of("layers.15.bn3.weight", "layers.15.bn3.bias")));
  }

  private static NetworkConfig family(
      NetworkConfig.Family family, int depth, NetworkConfig.Nonlinearity nonlinearity) {
    boolean xnor = family == NetworkConfig.Family.XNORNET;
    return config(
        family,
        depth,
        NetworkConfig.Stem.CIFAR,
        8,
        5,
        NetworkConfig.Weights.AUTO,
        nonlinearity,
        xnor ? WeightGradient.XNOR : WeightGradient.CLIPPED,
        xnor ? ActivationGradient.CLIPPED_IDENTITY : ActivationGradient.APPROX_SIGN);
  }

  @ParameterizedTest
  @MethodSource("smooth")
  void gradientsAreFiniteDifferencesOfTheLossWhereItIsSmooth(Smooth smooth) {
    int n = 4;
    for (Supplier<Backend> open : backends()) {
      try (Backend backend = open.get();
          Network network =
              new Network(
                  smooth.config(), Shape.of(16, 16, 2), new Planner(backend, n, Gradient.FP32))) {
        network.allocate();
        network.initialize(21);
        // RPReLU's slopes and shifts all start alike: moved apart.
        for (Parameter parameter : network.planner().parameters()) {
          if (parameter.name().contains(".move") || parameter.name().contains(".prelu")) {
            int count = (int) parameter.shape().count();
            network.setPublished(
                parameter, floats(random(Rng.state(22, parameter.name()), 0, count, 0.5)));
          }
        }
        network.refresh();
        long seed = Rng.state(21, "images");
        Tensors.write(backend, network.input(), floats(random(seed, 0, n * 16 * 16 * 2, 2)));
        ByteBuffer labels = Tensors.buffer(network.labels());
        for (int i = 0; i < n; i++) {
          labels.putInt(i);
        }
        backend.write(network.labels(), labels.flip());
        loss(network, n);
        network.backward(n, GradMode.OVERWRITE);
        for (String name : smooth.parameters()) {
          assertIsDifferenceQuotient(backend, network, name, n);
        }
      }
    }
  }

  private static void assertIsDifferenceQuotient(
      Backend backend, Network network, String name, int n) {
    Parameter parameter =
        network.planner().parameters().stream()
            .filter(p -> p.name().equals(name))
            .findFirst()
            .orElseThrow();
    double[] gradient = doubles(network.publishedGradient(parameter));
    float[] values = network.published(parameter);
    // A few, spread over the tensor.
    int stride = Math.max(1, values.length / 12) | 1;
    double largest = Arrays.stream(gradient).map(Math::abs).max().orElseThrow();
    assertTrue(largest > 1e-3, name + " has no gradient to compare");
    for (int i = 0; i < values.length; i += stride) {
      float value = values[i];
      // 2^-6: the loss has rounding errors of about 1e-7, so the quotient has 1e-7 / 2^-5 = 3e-6;
      // its truncation error is h^2/6 = 4e-5 times a third derivative below 1.
      float h = 0x1p-6f;
      values[i] = value + h;
      network.setPublished(parameter, values);
      double above = loss(network, n);
      values[i] = value - h;
      network.setPublished(parameter, values);
      double below = loss(network, n);
      double width = (double) (value + h) - (double) (value - h);
      values[i] = value;
      network.setPublished(parameter, values);
      assertEquals(
          (above - below) / width,
          gradient[i],
          1e-4 + 1e-3 * largest,
          backend.description() + " " + name + " " + i);
    }
  }

  /** A block, its input, and what of it moves the output smoothly; "x" is the input. */
  private record BlockCase(
      String name, Supplier<Block> block, int C, int side, List<String> smooth) {
    @Override
    public String toString() {
      return name;
    }
  }

  static List<BlockCase> blocks() {
    List<BlockCase> cases = new java.util.ArrayList<>();
    for (NetworkConfig.Nonlinearity kind :
        List.of(
            NetworkConfig.Nonlinearity.RELU,
            NetworkConfig.Nonlinearity.LEAKY_CLIP,
            NetworkConfig.Nonlinearity.CLIP)) {
      NetworkConfig config = family(NetworkConfig.Family.REALNET, 18, kind);
      String conv = "b.binary_conv.weights";
      cases.add(
          new BlockCase(
              kind + "",
              () -> new BiRealBlock(config, "b", 5, 5, 1),
              5,
              4,
              List.of("x", conv, "b.bn1.weight", "b.bn1.bias")));
      cases.add(
          new BlockCase(
              kind + "/2",
              () -> new BiRealBlock(config, "b", 3, 6, 2),
              3,
              6,
              List.of("x", conv, "b.downsample.1.weight", "b.downsample.2.weight")));
    }
    NetworkConfig resnet = family(NetworkConfig.Family.RESNET, 18, NetworkConfig.Nonlinearity.AUTO);
    List<String> all =
        List.of(
            "x", "b.conv1.weight", "b.bn1.weight", "b.bn1.bias", "b.conv2.weight", "b.bn2.bias");
    cases.add(new BlockCase("resnet", () -> new ResNetBlock(resnet, "b", 5, 1), 5, 4, all));
    List<String> more = new java.util.ArrayList<>(all);
    more.addAll(List.of("b.downsample.0.weight", "b.downsample.1.weight"));
    cases.add(new BlockCase("resnet/2", () -> new ResNetBlock(resnet, "b", 6, 2), 3, 5, more));
    cases.add(
        new BlockCase(
            "norm, relu", () -> new NormReluBlock("b"), 5, 4, List.of("x", "b.weight", "b.bias")));
    NetworkConfig xnor = family(NetworkConfig.Family.XNORNET, 18, NetworkConfig.Nonlinearity.AUTO);
    cases.add(
        new BlockCase(
            "xnor/2",
            () -> new XnorBlock(xnor, "b", 6, 2),
            3,
            6,
            List.of("b.downsample.0.weight", "b.downsample.1.weight", "b.downsample.1.bias")));
    NetworkConfig fifty =
        family(NetworkConfig.Family.BIREALNET, 50, NetworkConfig.Nonlinearity.AUTO);
    cases.add(
        new BlockCase(
            "first bottleneck",
            () -> new BottleneckBlock(fifty, "b", null, 16, 1),
            4,
            4,
            List.of("b.bn3.weight", "b.bn3.bias", "b.downsample.1.weight", "b.downsample.2.bias")));
    return cases;
  }

  @ParameterizedTest
  @MethodSource("blocks")
  void gradientsOfABlockAreFiniteDifferences(BlockCase c) {
    for (Supplier<Backend> open : backends()) {
      try (Backend backend = open.get();
          Planner planner = new Planner(backend, 2, Gradient.FP32)) {
        Block block = c.block().get();
        Shape shape = Shape.of(2, c.side(), c.side(), c.C());
        Activation input =
            new Activation(
                planner.keep(shape, DType.F32),
                planner.keep(shape, DType.BITS),
                planner.gradient(shape, 0),
                0);
        Activation output = block.plan(planner, input, null);
        planner.finish();
        planner.allocate();
        long seed = Rng.state(31, c.name());
        Map<String, Parameter> parameters = new LinkedHashMap<>();
        for (Parameter parameter : planner.parameters()) {
          parameters.put(parameter.name(), parameter);
          int count = (int) parameter.shape().count();
          set(backend, parameter, random(seed, parameters.size(), count, 1));
        }
        planner.owned().forEach(Layer::refresh);
        // Away from the kinks of all nonlinearities at -1, 0 and 1.
        double[] x = random(seed, 0, (int) shape.count(), 1.7);
        Arrays.setAll(
            x,
            i -> {
              double off = x[i] - Math.rint(x[i]);
              return Math.abs(off) < 0.05 ? x[i] + 0.1 : x[i];
            });
        double[] dy = random(seed, 100, (int) output.real().shape().count(), 1);
        java.util.function.ToDoubleFunction<double[]> loss =
            pixels -> {
              writeImages(backend, input.real(), 2, pixels);
              backend.signPackFwd(2, input.bits(), input.real(), null);
              block.forward(2, Pass.TRAIN);
              double[] y = readImages(backend, output.real(), 2);
              double sum = 0;
              for (int i = 0; i < y.length; i++) {
                sum += y[i] * dy[i];
              }
              return sum;
            };
        assertTrue(Double.isFinite(loss.applyAsDouble(x)));
        writeImages(backend, output.gradient(), 2, dy);
        block.backward(2, GradMode.OVERWRITE);
        double[] dx = readImages(backend, input.gradient(), 2);
        for (String name : c.smooth()) {
          Parameter parameter = parameters.get(name);
          double[] gradient =
              parameter == null
                  ? dx
                  : doubles(parameter.toPublished(Tensors.floats(backend, parameter.gradient())));
          double[] values =
              parameter == null
                  ? x.clone()
                  : doubles(parameter.toPublished(Tensors.floats(backend, parameter.value())));
          double largest = Arrays.stream(gradient).map(Math::abs).max().orElseThrow();
          assertTrue(largest > 1e-2, name + " has no gradient to compare");
          for (int i = 0; i < values.length; i++) {
            // 2^-9: y has about 200 rounding errors of 1e-7, so the quotient one of 1e-7 sqrt(200)
            // /
            // 2^-8 = 4e-4; a relu between two convolutions is rarely crossed by so short a step.
            double h = 0x1p-9;
            double was = values[i];
            double[] sides = new double[2];
            for (int side = 0; side < 2; side++) {
              values[i] = (float) (side == 0 ? was - h : was + h);
              if (parameter != null) {
                set(backend, parameter, values);
                planner.owned().forEach(Layer::refresh);
              }
              sides[side] = loss.applyAsDouble(parameter == null ? values : x);
            }
            values[i] = was;
            assertEquals(
                (sides[1] - sides[0]) / (2 * h),
                gradient[i],
                2e-3 + 4e-3 * largest,
                backend.description() + " " + name + " " + i);
          }
          if (parameter != null) {
            set(backend, parameter, values);
            planner.owned().forEach(Layer::refresh);
          }
        }
      }
    }
  }
}
