package bireal.nn;

import static bireal.nn.NetworkTesting.assertClose;
import static bireal.nn.NetworkTesting.backends;
import static bireal.nn.NetworkTesting.config;
import static bireal.nn.NetworkTesting.doubles;
import static bireal.nn.NetworkTesting.fill;
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
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightGradient;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * One block against two independent witnesses: a float64 block of plain loops ({@link
 * BlockOracle}), and values measured with the published PyTorch code (networks.md 7.1).
 */
class BlockValuesTest {
  /** Where a value is printed with 7 digits, and was computed in float32. */
  private static final double PUBLISHED_TOLERANCE = 1e-5;

  /** What a block made, in published (NCHW, OIHW) order, by the names that the oracle has too. */
  private static Map<String, double[]> runBlock(
      Backend backend, NetworkConfig config, BlockOracle in, int stride) {
    BiRealBlock block = new BiRealBlock(config, "block", in.inChannels, in.outChannels, stride);
    try (Planner planner = new Planner(backend, in.n + 1, Gradient.FP32)) {
      Shape shape = Shape.of(in.n + 1, in.side, in.side, in.inChannels);
      Activation input =
          new Activation(
              planner.keep(shape, DType.F32),
              planner.keep(shape, DType.BITS),
              planner.gradient(shape, 0),
              0);
      Activation output = block.plan(planner, input, null);
      planner.finish();
      planner.allocate();
      Map<String, State> states = new LinkedHashMap<>();
      planner.states().forEach(state -> states.put(state.name(), state));
      set(backend, states.get(weights(in)), in.w);
      if (in.move0 != null) {
        set(backend, states.get("block.move0.bias"), in.move0);
        set(backend, states.get("block.move1.bias"), in.move1);
        set(backend, states.get("block.prelu.weight"), in.slope);
        set(backend, states.get("block.move2.bias"), in.move2);
      }
      set(backend, states.get("block.bn1.weight"), in.gamma);
      set(backend, states.get("block.bn1.bias"), in.beta);
      List<String> norms =
          in.downW == null ? List.of("block.bn1") : List.of("block.bn1", "block.downsample.2");
      if (in.downW != null) {
        set(backend, states.get("block.downsample.1.weight"), in.downW);
        set(backend, states.get("block.downsample.2.weight"), in.downGamma);
        set(backend, states.get("block.downsample.2.bias"), in.downBeta);
      }
      for (String norm : norms) {
        State variance = states.get(norm + ".running_var");
        double[] ones = new double[in.outChannels];
        Arrays.fill(ones, 1);
        set(backend, variance, ones);
      }
      planner.owned().forEach(Layer::refresh);
      writeImages(backend, input.real(), in.n, in.x);
      backend.signPackFwd(in.n, input.bits(), input.real(), Sign.thresholdOf(block.consumes()));
      block.forward(in.n, Pass.TRAIN);
      Map<String, double[]> made = new LinkedHashMap<>();
      made.put("y", readImages(backend, output.real(), in.n));
      writeImages(backend, output.gradient(), in.n, in.dy);
      block.backward(in.n, GradMode.OVERWRITE);
      for (Layer layer : planner.owned()) {
        UpdateSpec.BinaryParameter binary = layer.binaryParameter();
        if (binary != null) {
          backend.weightGradient(binary.gradient(), binary.w(), binary.alpha(), binary.rule());
        }
      }
      try (Update update =
          backend.planUpdate(planner.updateSpec(List.of(new UpdateSpec.Segment(0, 1, 0))))) {
        backend.batchNormCommit(update, planner.step(), 1);
      }
      made.put("dx", readImages(backend, input.gradient(), in.n));
      for (Parameter parameter : planner.parameters()) {
        float[] gradient = Tensors.floats(backend, parameter.gradient());
        made.put("d " + parameter.name(), doubles(parameter.toPublished(gradient)));
      }
      for (String norm : norms) {
        for (String statistic : List.of(".running_mean", ".running_var")) {
          State state = states.get(norm + statistic);
          made.put(state.name(), doubles(Tensors.floats(backend, state.value())));
        }
      }
      return made;
    }
  }

  /** As published: ReActNet's are 4-dimensional, Bi-Real Net's flat. */
  private static String weights(BlockOracle block) {
    return block.move0 == null ? "block.binary_conv.weights" : "block.binary_conv.weight";
  }

  /** The oracle's results under the names of {@link #runBlock}. */
  private static Map<String, double[]> results(BlockOracle oracle) {
    Map<String, double[]> results = new LinkedHashMap<>();
    results.put("y", oracle.y);
    results.put("dx", oracle.dx);
    results.put("d " + weights(oracle), oracle.dw);
    if (oracle.move0 != null) {
      results.put("d block.move0.bias", oracle.dmove0);
      results.put("d block.move1.bias", oracle.dmove1);
      results.put("d block.prelu.weight", oracle.dslope);
      results.put("d block.move2.bias", oracle.dmove2);
    }
    results.put("d block.bn1.weight", oracle.dgamma);
    results.put("d block.bn1.bias", oracle.dbeta);
    results.put("block.bn1.running_mean", scaled(oracle.mean, 0.1, 0));
    results.put("block.bn1.running_var", scaled(oracle.unbiased, 0.1, 0.9));
    if (oracle.downW != null) {
      results.put("d block.downsample.1.weight", oracle.downDw);
      results.put("d block.downsample.2.weight", oracle.downDgamma);
      results.put("d block.downsample.2.bias", oracle.downDbeta);
      results.put("block.downsample.2.running_mean", scaled(oracle.downMean, 0.1, 0));
      results.put("block.downsample.2.running_var", scaled(oracle.downUnbiased, 0.1, 0.9));
    }
    return results;
  }

  /** The fill of networks.md 7.1: computed in double, rounded to float32. */
  private static BlockOracle publishedCase(int inChannels, int outChannels, int stride) {
    return publishedCase(inChannels, outChannels, stride, false);
  }

  private static BlockOracle publishedCase(
      int inChannels, int outChannels, int stride, boolean react) {
    BlockOracle block = new BlockOracle(2, inChannels, outChannels, 4, stride);
    block.x = fill(2 * inChannels * 16, i -> 1.5 * Math.sin(0.7 * i + 0.1));
    block.w = fill(outChannels * inChannels * 9, i -> 1.2 * Math.cos(1.3 * i + 0.2));
    block.gamma = fill(outChannels, i -> 1 + 0.1 * i);
    block.beta = fill(outChannels, i -> 0.05 * i - 0.02);
    block.dy = fill(2 * outChannels * block.outSide * block.outSide, i -> Math.sin(0.3 * i + 0.5));
    if (stride > 1 || inChannels != outChannels) {
      block.downW = fill(outChannels * inChannels, i -> 0.5 * Math.sin(0.9 * i + 0.4));
      block.downGamma = fill(outChannels, i -> 1 - 0.1 * i);
      block.downBeta = fill(outChannels, i -> 0.03 * i);
    }
    if (react) {
      block.move0 = fill(inChannels, i -> 0.2 - 0.15 * i);
      block.move1 = fill(outChannels, i -> -0.1 + 0.07 * i);
      block.slope = fill(outChannels, i -> 0.25 - 0.05 * i);
      block.move2 = fill(outChannels, i -> 0.03 + 0.02 * i);
    }
    block.run(ActivationGradient.APPROX_SIGN, WeightGradient.CLIPPED);
    return block;
  }

  /** Values measured with the published PyTorch code (networks.md 7.1, case A). */
  private static Map<String, double[]> publishedA() {
    Map<String, double[]> values = new LinkedHashMap<>();
    values.put(
        "y",
        new double[] {
          0.1987239, 2.007871, 2.869511, 1.70315, 0.8492793, -1.939102, -3.091002, -1.389413,
          -1.218486, 1.106661, 2.466722, 1.546789, 1.246704, -0.4995547, -1.961625, -1.335189,
          -0.5654827, -0.788122, -0.2078189, 0.2784925, 0.2424883, 1.199115, 1.599652, 1.005722,
          -0.1037354, -0.1333162, -1.615534, -1.456064, 0.2952887, 0.6676179, 1.607833, 1.574931
        });
    values.put(
        "dx",
        new double[] {
          1.987038,
          0.7173561,
          0.8912073,
          0.9854497,
          0.579547,
          0.9047658,
          0.7457052,
          0.5155014,
          -0.03053832,
          -0.959298,
          -0.3507832,
          -0.6118579,
          -0.8182771,
          -0.6825233,
          -0.6921328,
          -0.9589243,
          -0.8322675,
          -0.4979194,
          -0.1558461,
          -0.0830894,
          0.21512,
          0.4941134,
          0.491807,
          0.8172972,
          0.9881682,
          0.9893582,
          0.8029959,
          -0.476278,
          0.5010208,
          0.2228899,
          -0.07515112,
          0.1767573
        });
    values.put(
        "d block.binary_conv.weights",
        new double[] {
          0.0,
          1.846775,
          0.0,
          0.0007626414,
          -0.3826172,
          0.0,
          -0.5474125,
          0.0,
          1.212242,
          0.02094729,
          0.8079758,
          1.595854,
          0.0,
          -0.08841473,
          0.0,
          -1.593792,
          -1.760089,
          0.0
        });
    values.put("d block.bn1.weight", new double[] {4.826323, 1.146812});
    values.put("d block.bn1.bias", new double[] {0.7547287, -0.169816});
    values.put("block.bn1.running_mean", new double[] {-0.02462739, 0.00454591});
    values.put("block.bn1.running_var", new double[] {2.216006, 2.367422});
    return values;
  }

  /** Values measured with the published PyTorch code (networks.md 7.1, case B). */
  private static Map<String, double[]> publishedB() {
    Map<String, double[]> values = new LinkedHashMap<>();
    values.put(
        "y",
        new double[] {
          1.153922, 2.395136, -0.02987924, 2.679156, 1.979489, -0.8268272, 2.375698, -0.4918604,
          -0.8510297, -1.651671, 0.2181002, -3.08717, -0.7712902, 2.924556, -1.726515, 1.381369
        });
    values.put(
        "dx",
        new double[] {
          0.1107575,
          0.2361414,
          0.7328172,
          0.7328172,
          0.9980149,
          0.01660025,
          0.7328172,
          0.7328172,
          1.215329,
          1.149985,
          0.3961701,
          0.3961701,
          1.122883,
          0.5664175,
          0.3779468,
          0.3961701,
          -1.015786,
          -0.9819323,
          -0.7761089,
          -0.4486731,
          -1.015786,
          -1.015786,
          0.08950862,
          -0.450653,
          0.6054616,
          0.6054616,
          -0.2292938,
          -0.08493944,
          0.6054616,
          0.6054616,
          -0.1299718,
          -0.1133642
        });
    values.put(
        "d block.binary_conv.weights",
        new double[] {
          0.0, 0.02995832, 0.0, 0.06664145, -0.03651793, 0.0, 0.09436341, 0.0, -0.3268102,
          -0.001571216, 0.5542913, 0.3932864, 0.0, -0.6104872, 0.0, 0.06664145, 0.6378989, 0.0
        });
    values.put("d block.bn1.weight", new double[] {3.128039, 0.6720113, 3.148398, -0.1731384});
    values.put("d block.bn1.bias", new double[] {1.152938, 5.49908, 2.83233, -3.446446});
    values.put(
        "block.bn1.running_mean", new double[] {-0.05910573, 0.05455091, 0.01980824, -0.09233838});
    values.put("block.bn1.running_var", new double[] {2.741013, 2.105435, 2.366328, 2.829397});
    values.put(
        "d block.downsample.1.weight",
        new double[] {
          0.9562672, -0.3767638, -0.04574889, 0.9476098, 0.1640103, -0.1308502, -7.866647, -9.032853
        });
    values.put(
        "d block.downsample.2.weight", new double[] {4.60222, 0.6298948, 4.093939, -0.2733896});
    values.put(
        "block.downsample.2.running_mean",
        new double[] {-0.0003361546, 0.001020139, -0.0001274011, -0.0009622475});
    values.put(
        "block.downsample.2.running_var",
        new double[] {0.9011234, 0.9005354, 0.9016886, 0.9002082});
    return values;
  }

  @ParameterizedTest
  @MethodSource("bireal.nn.NetworkTesting#backends")
  void aBlockRepeatsTheValuesMeasuredWithThePublishedCode(Supplier<Backend> open) {
    BlockOracle a = publishedCase(2, 2, 1);
    BlockOracle b = publishedCase(2, 4, 2);
    NetworkConfig config =
        config(
            NetworkConfig.Stem.CIFAR, 2, 2, WeightGradient.CLIPPED, ActivationGradient.APPROX_SIGN);
    try (Backend backend = open.get()) {
      Map<String, double[]> madeA = runBlock(backend, config, a, 1);
      assertStartsLike(publishedA(), madeA);
      assertSums("y", 0.5950984, 145.7976, madeA.get("y"));
      assertSums("dx", Double.NaN, 32.66488, madeA.get("dx"));
      assertSums("dW", 1.987945, 18.90703, madeA.get("d block.binary_conv.weights"));
      Map<String, double[]> madeB = runBlock(backend, config, b, 2);
      assertStartsLike(publishedB(), madeB);
      assertSums("y", 3.2, 111.318, madeB.get("y"));
      assertSums("dx", Double.NaN, 39.14344, madeB.get("dx"));
      assertSums("dW", 1.922079, 8.219996, madeB.get("d block.binary_conv.weights"));
      // Gradients of weights outside [-1, 1] are exact zeros.
      assertEquals(14, zeros(madeA.get("d block.binary_conv.weights")));
      assertEquals(27, zeros(madeB.get("d block.binary_conv.weights")));
    }
  }

  /** Values measured with the published ReActNet code (networks.md 7.1, case C). */
  private static Map<String, double[]> publishedC() {
    Map<String, double[]> values = new LinkedHashMap<>();
    values.put(
        "y",
        new double[] {
          0.1287238,
          1.937871,
          2.799511,
          1.63315,
          0.7792792,
          -0.4797755,
          -0.7677504,
          -0.3423532,
          -0.2996216,
          1.036661,
          2.396722,
          1.476789,
          1.176704,
          -0.1198887,
          -0.4854062,
          -0.3287974,
          -0.06909654,
          -0.1136244,
          0.002436213,
          0.2984925,
          0.2624883,
          1.219115,
          1.619652,
          1.025722,
          0.02325291,
          0.01733677,
          -0.2791069,
          -0.2472129,
          0.3152887,
          0.687618,
          1.627833,
          1.594931
        });
    values.put(
        "dx",
        new double[] {
          1.057806,
          0.7173561,
          0.8912073,
          0.9854497,
          0.7532316,
          -0.2600963,
          0.1864263,
          0.1288753,
          -0.1039094,
          0.147829,
          -0.3507832,
          -0.6118579,
          -0.8182771,
          -0.1683218,
          0.2462797,
          -0.2397311,
          -0.1664535,
          -0.2222985,
          -0.2407665,
          -0.0830894,
          0.21512,
          0.4941134,
          0.2755268,
          0.5001001,
          0.1976337,
          0.1978717,
          0.3645708,
          -0.1697624,
          0.5010208,
          0.2228899,
          -0.07515112,
          0.1624418
        });
    values.put(
        "d block.binary_conv.weight",
        new double[] {
          0.0,
          1.241996,
          0.0,
          -0.02899307,
          -0.05936688,
          0.0,
          -0.3221948,
          0.0,
          0.9206192,
          -0.154896,
          0.1364823,
          0.7013091,
          0.0,
          0.2094182,
          0.0,
          -0.7835639,
          -1.334806,
          0.0
        });
    values.put("d block.move0.bias", new double[] {0.8292046, -0.6605088});
    values.put("d block.bn1.weight", new double[] {3.285298, 0.3813561});
    values.put("d block.bn1.bias", new double[] {1.897516, 0.4342289});
    values.put("d block.move1.bias", new double[] {1.897516, 0.4342291});
    values.put("d block.prelu.weight", new double[] {2.495077, -0.3537464});
    values.put("d block.move2.bias", new double[] {0.7547285, -0.1698155});
    return values;
  }

  /** Values measured with the published ReActNet code (networks.md 7.1, case D). */
  private static Map<String, double[]> publishedD() {
    Map<String, double[]> values = new LinkedHashMap<>();
    values.put(
        "y",
        new double[] {
          1.083922,
          2.325136,
          -0.00246981,
          2.609156,
          1.999489,
          -0.1213654,
          2.395698,
          -0.05437208,
          -0.05165446,
          -0.1717506,
          0.3281002,
          -0.3870756,
          0.02387098,
          3.124556,
          -0.07165146,
          1.581369
        });
    values.put(
        "dx",
        new double[] {
          0.2584017,
          0.1764704,
          0.1686691,
          0.1686691,
          0.3238537,
          -0.2575346,
          0.1686691,
          0.1686691,
          0.6769011,
          0.4882574,
          -0.01025164,
          -0.01025164,
          0.4918004,
          0.355145,
          0.07644482,
          -0.01025164,
          -0.2856783,
          -0.2315631,
          -0.514649,
          -0.2865055,
          -0.2856783,
          -0.2856783,
          0.04485124,
          -0.1721236,
          0.1833926,
          0.1833926,
          -0.4879297,
          -0.49764,
          0.1833926,
          0.1833926,
          -0.3752508,
          -0.2572483
        });
    values.put(
        "d block.binary_conv.weight",
        new double[] {
          0.0,
          -0.1451684,
          0.0,
          0.03596303,
          0.03571278,
          0.0,
          0.1265261,
          0.0,
          -0.2872017,
          0.03430723,
          0.2688097,
          0.1063205,
          0.0,
          -0.3136567,
          0.0,
          0.03596303,
          0.3425527,
          0.0
        });
    values.put("d block.move0.bias", new double[] {-0.4078696, 0.3446969});
    values.put("d block.bn1.weight", new double[] {2.527607, 2.546319, 2.163903, -1.462606});
    values.put("d block.bn1.bias", new double[] {1.924908, 3.603969, 3.198665, -1.680836});
    values.put("d block.move1.bias", new double[] {1.924908, 3.603969, 3.198665, -1.680836});
    values.put("d block.prelu.weight", new double[] {2.89857, -3.66342, 1.764477, 2.316388});
    values.put("d block.move2.bias", new double[] {1.152938, 5.49908, 2.83233, -3.446446});
    values.put(
        "d block.downsample.1.weight",
        new double[] {
          -0.5286086, 0.2202193, 0.1600849, -2.95977, -0.1637559, 0.1221637, -5.629721, -6.492496
        });
    values.put(
        "d block.downsample.2.weight", new double[] {3.121361, 1.658617, 3.613499, -1.689237});
    values.put("d block.downsample.2.bias", new double[] {1.924908, 3.603969, 3.198665, -1.680836});
    return values;
  }

  @ParameterizedTest
  @MethodSource("bireal.nn.NetworkTesting#backends")
  void aReActNetBlockRepeatsTheValuesMeasuredWithThePublishedCode(Supplier<Backend> open) {
    NetworkConfig config = react(NetworkConfig.Weights.BINARY, 2, 2);
    try (Backend backend = open.get()) {
      Map<String, double[]> madeC = runBlock(backend, config, publishedCase(2, 2, 1, true), 1);
      assertStartsLike(publishedC(), madeC);
      assertSums("y", 30.56879, 70.20824, madeC.get("y"));
      assertSums("dW", Double.NaN, 6.626905, madeC.get("d block.binary_conv.weight"));
      Map<String, double[]> madeD = runBlock(backend, config, publishedCase(2, 4, 2, true), 2);
      assertStartsLike(publishedD(), madeD);
      assertSums("y", 25.62273, 65.48958, madeD.get("y"));
      assertSums("dW", Double.NaN, 4.7621, madeD.get("d block.binary_conv.weight"));
    }
  }

  @Test
  void theOracleRepeatsThemToo() {
    assertStartsLike(publishedC(), results(publishedCase(2, 2, 1, true)));
    assertStartsLike(publishedD(), results(publishedCase(2, 4, 2, true)));
    BlockOracle a = publishedCase(2, 2, 1);
    assertStartsLike(publishedA(), results(a));
    assertStartsLike(
        Map.of("alpha", new double[] {0.7880765, 0.7273454}), Map.of("alpha", a.alpha));
    BlockOracle b = publishedCase(2, 4, 2);
    assertStartsLike(publishedB(), results(b));
    assertStartsLike(
        Map.of("alpha", new double[] {0.7880765, 0.7273454, 0.7923294, 0.7387071}),
        Map.of("alpha", b.alpha));
  }

  @ParameterizedTest
  @CsvSource({
    "1, 1, 4, 1",
    "31, 31, 2, 1",
    "32, 32, 5, 1",
    "33, 33, 3, 1",
    "65, 65, 2, 1",
    "1, 2, 4, 2",
    "31, 62, 4, 2",
    "33, 66, 2, 2",
    "5, 3, 3, 1"
  })
  void aBlockAgreesWithFloat64AtAwkwardSizes(int C, int K, int side, int stride) {
    for (ActivationGradient activation : ActivationGradient.values()) {
      assertAgreesWithOracle(C, K, side, stride, activation, WeightGradient.CLIPPED);
    }
  }

  @ParameterizedTest
  @EnumSource
  void everyWeightGradientRuleAgreesWithFloat64(WeightGradient rule) {
    assertAgreesWithOracle(9, 18, 6, 2, ActivationGradient.APPROX_SIGN, rule);
    assertAgreesWithOracle(6, 6, 3, 1, ActivationGradient.APPROX_SIGN, rule);
  }

  private static void assertAgreesWithOracle(
      int C, int K, int side, int stride, ActivationGradient activation, WeightGradient rule) {
    BlockOracle block = new BlockOracle(3, C, K, side, stride);
    long seed = Rng.state(11, "block " + C + " " + K + " " + side + " " + stride);
    block.x = random(seed, 1, 3 * C * side * side, 1.6);
    block.w = random(seed, 2, K * C * 9, 1.3);
    block.gamma = random(seed, 3, K, 1.5);
    block.beta = random(seed, 4, K, 1);
    block.dy = random(seed, 5, 3 * K * block.outSide * block.outSide, 1);
    if (stride > 1 || C != K) {
      block.downW = random(seed, 6, K * C, 1);
      block.downGamma = random(seed, 7, K, 1.5);
      block.downBeta = random(seed, 8, K, 1);
    }
    block.run(activation, rule);
    assertAgrees(config(NetworkConfig.Stem.CIFAR, 2, 2, rule, activation), block, stride);
    block.move0 = random(seed, 9, C, 0.5);
    block.move1 = random(seed, 10, K, 0.5);
    block.slope = random(seed, 11, K, 0.5);
    block.move2 = random(seed, 12, K, 0.5);
    for (boolean realWeights : new boolean[] {false, true}) {
      block.realWeights = realWeights;
      block.run(activation, rule);
      assertAgrees(
          config(
              NetworkConfig.Family.REACTNET,
              18,
              NetworkConfig.Stem.CIFAR,
              2,
              2,
              realWeights ? NetworkConfig.Weights.REAL : NetworkConfig.Weights.BINARY,
              NetworkConfig.Nonlinearity.AUTO,
              rule,
              activation),
          block,
          stride);
    }
  }

  private static void assertAgrees(NetworkConfig config, BlockOracle block, int stride) {
    int C = block.inChannels;
    for (Supplier<Backend> open : backends()) {
      try (Backend backend = open.get()) {
        Map<String, double[]> made = runBlock(backend, config, block, stride);
        Map<String, double[]> expected = results(block);
        assertEquals(expected.keySet(), made.keySet());
        expected.forEach(
            (name, values) -> {
              assertEquals(values.length, made.get(name).length, name);
              // float32 sums of up to 9*66 terms of one size: far below 600 * 2^-24 = 4e-5 of the
              // largest, since rounding errors do not all point one way. A normalisation undoes
              // the scale of a single weight, so that gradient is 0 but for eps: terms of size 1
              // cancel.
              boolean cancels = C == 1 && name.equals("d block.downsample.1.weight");
              assertClose(
                  backend.description() + " " + name,
                  values,
                  made.get(name),
                  1e-5,
                  cancels ? 1 : 0);
            });
      }
    }
  }

  private static double[] scaled(double[] values, double factor, double offset) {
    return Arrays.stream(values).map(v -> offset + factor * v).toArray();
  }

  private static long zeros(double[] values) {
    return Arrays.stream(values).filter(v -> v == 0).count();
  }

  private static void assertStartsLike(Map<String, double[]> expected, Map<String, double[]> made) {
    expected.forEach(
        (name, values) -> {
          assertTrue(made.get(name).length >= values.length, name);
          assertClose(
              name, values, Arrays.copyOf(made.get(name), values.length), PUBLISHED_TOLERANCE, 0);
        });
  }

  /** {@code sum} NaN: not published. */
  private static void assertSums(String name, double sum, double squares, double[] values) {
    double size = Arrays.stream(values).map(Math::abs).sum();
    if (!Double.isNaN(sum)) {
      assertEquals(sum, Arrays.stream(values).sum(), PUBLISHED_TOLERANCE * size, "sum of " + name);
    }
    assertEquals(
        squares,
        Arrays.stream(values).map(v -> v * v).sum(),
        PUBLISHED_TOLERANCE * squares,
        "squares of " + name);
  }
}
