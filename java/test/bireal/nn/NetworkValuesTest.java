package bireal.nn;

import static bireal.nn.NetworkTesting.config;
import static bireal.nn.NetworkTesting.doubles;
import static bireal.nn.NetworkTesting.fill;
import static bireal.nn.NetworkTesting.floats;
import static bireal.nn.NetworkTesting.loss;
import static bireal.nn.NetworkTesting.react;
import static bireal.nn.NetworkTesting.readImages;
import static bireal.nn.NetworkTesting.writeImages;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.StepState;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Whole networks against values measured with the published PyTorch code (networks.md 7.2). */
class NetworkValuesTest {
  /** Sum, sum of squares and first four values (NCHW) of one landmark. */
  private record Landmark(String name, double sum, double squares, List<Double> first4) {}

  /**
   * Values measured with the published PyTorch code in float32 (networks.md 7.2). Its float64 run
   * differs by up to 1e-5, ours may by as much; 1e-3 leaves room for that and none for a single
   * other sign, which moves 9 pixels of every channel by about 2/sqrt(9*64) = 8 %.
   */
  private static final double NETWORK_TOLERANCE = 1e-3;

  @Test
  void theWholeNetworkRepeatsTheValuesMeasuredWithThePublishedCode() {
    NetworkConfig config =
        config(
            NetworkConfig.Stem.IMAGENET,
            64,
            1000,
            WeightGradient.CLIPPED,
            ActivationGradient.APPROX_SIGN);
    try (Backend backend = CpuBackend.open(2);
        Network network =
            new Network(config, Shape.of(64, 64, 3), new Planner(backend, 2, Gradient.FP32))) {
      fillAsMeasured(network);
      assertEquals(10.12615, loss(network, 2), NETWORK_TOLERANCE);
      assertLogits(
          network, 5925.223, 2.429312, 1.537163, -0.6271541, -2.272431, -2.037027, -0.1157627);
      assertLandmarks(
          network,
          new Landmark(
              "stem", 27911.61, 46948.83, List.of(1.124044, -0.08459673, -0.2919642, -0.1830067)),
          new Landmark(
              "layer1", 27911.61, 239256.7, List.of(-3.567419, -1.469096, 1.594419, 1.350787)),
          new Landmark("layer2", 0, 92671.11, List.of(2.497505, -1.059818, -2.912849, 1.360148)),
          new Landmark("layer3", 0, 49873.02, List.of(-3.939002, -1.240225, -1.399475, -2.079947)),
          new Landmark("layer4", 0, 27785.98, List.of(4.334183, 0.8285059, 5.549573, -1.921058)));

      network.forward(2, Pass.EVALUATE);
      assertEquals(6.861562, lossOfLogits(network), NETWORK_TOLERANCE);
      assertLogits(
          network, 262.1702, -0.6270921, -0.3801724, 0.1813807, 0.5928223, 0.5136392, 0.00936453);
      assertLandmarks(
          network,
          new Landmark(
              "stem",
              1776.586,
              191.3394,
              List.of(0.07126281, -0.003777737, -0.0166525, -0.009887686)),
          new Landmark(
              "layer1", 1662.8, 30172.15, List.of(0.2618833, 0.4421371, -0.7807667, -2.684932)),
          new Landmark(
              "layer2", 158.476, 49088.39, List.of(0.4457856, -1.653903, -1.404895, 1.631453)),
          new Landmark(
              "layer3", -8.624445, 14293.11, List.of(-1.368785, -2.157656, -0.1733027, -0.5240773)),
          new Landmark(
              "layer4", 0.5986714, 56660.98, List.of(3.267218, -0.3475468, -2.121798, -8.781782)));
    }
  }

  @Test
  void soDoesReActNet() {
    try (Backend backend = CpuBackend.open(2);
        Network network =
            new Network(
                react(NetworkConfig.Weights.BINARY, 64, 1000),
                Shape.of(64, 64, 3),
                new Planner(backend, 2, Gradient.FP32))) {
      fillAsMeasured(network);
      assertEquals(12.71159, loss(network, 2), NETWORK_TOLERANCE);
      assertLogits(
          network, 36910.45, 2.97187, -0.7994435, -3.909128, -3.783591, -0.5267208, 3.166066);
      assertLandmarks(
          network,
          new Landmark(
              "layer1", 47600.64, 173667.6, List.of(1.302865, 1.611981, 1.719311, 2.569108)),
          new Landmark(
              "layer2", 18477.89, 55068.47, List.of(-0.1103909, 0.9033709, 3.880127, -0.3577956)),
          new Landmark(
              "layer3", 8836.145, 22141.98, List.of(-0.160343, -0.309238, 0.883787, 0.5727341)),
          new Landmark(
              "layer4", 4780.219, 15378.97, List.of(-0.3653727, -0.2441175, 1.720956, 2.454252)));
    }
  }

  /** The fill of networks.md 7.2: parameters numbered in published order, images and labels. */
  private static void fillAsMeasured(Network network) {
    Backend backend = network.planner().backend();
    network.allocate();
    network.initialize(0);
    int j = 0;
    for (Parameter parameter : network.planner().parameters()) {
      int[] dims = Arrays.stream(parameter.publishedDims()).mapToInt(Math::toIntExact).toArray();
      int count = Arrays.stream(dims).reduce(1, Math::multiplyExact);
      if (dims.length >= 2) {
        double amplitude =
            parameter.name().endsWith(".weights")
                ? 0.05
                : parameter.name().contains(".move") ? 0.1 : Math.sqrt(2.0 * dims[0] / count);
        int number = j;
        network.setPublished(
            parameter, floats(fill(count, i -> amplitude * Math.sin(0.37 * i + 0.11 * number))));
      } else if (parameter.name().equals("fc.bias")) {
        network.setPublished(parameter, new float[count]);
      }
      j++;
    }
    network.refresh();
    writeImages(backend, network.input(), 2, fill(2 * 3 * 64 * 64, i -> Math.sin(0.013 * i)));
    ByteBuffer labels = Tensors.buffer(network.labels());
    backend.write(network.labels(), labels.putInt(3).putInt(7).flip());
  }

  private static double lossOfLogits(Network network) {
    Planner planner = network.planner();
    planner
        .backend()
        .softmaxXent(
            2,
            planner.step(),
            null,
            network.logits(),
            network.labels(),
            null,
            0.1,
            1,
            0.5,
            GradMode.OVERWRITE,
            planner.workspace());
    return Tensors.doubles(planner.backend(), planner.step().metrics())[StepState.LOSS_SUM] / 2;
  }

  private static void assertLogits(Network network, double squares, double... first) {
    double[] logits = doubles(Tensors.floats(network.planner().backend(), network.logits()));
    assertEquals(2000, logits.length);
    for (int i = 0; i < first.length; i++) {
      assertEquals(first[i], logits[i], NETWORK_TOLERANCE, "logit " + i);
    }
    double sum = Arrays.stream(logits).map(v -> v * v).sum();
    assertEquals(squares, sum, NETWORK_TOLERANCE * squares, "squares of the logits");
  }

  private static void assertLandmarks(Network network, Landmark... landmarks) {
    for (Landmark expected : landmarks) {
      Tensor tensor = network.landmarks().get(expected.name());
      assertNotNull(tensor, expected.name());
      double[] values = readImages(network.planner().backend(), tensor, 2);
      for (int i = 0; i < 4; i++) {
        assertEquals(
            expected.first4().get(i), values[i], NETWORK_TOLERANCE, expected.name() + " " + i);
      }
      double squares = Arrays.stream(values).map(v -> v * v).sum();
      assertEquals(
          expected.squares(),
          squares,
          NETWORK_TOLERANCE * expected.squares(),
          "squares of " + expected.name());
      // Terms of both signs cancel, so the sum is judged by the size that they have together.
      double size = Arrays.stream(values).map(Math::abs).sum();
      assertEquals(
          expected.sum(), Arrays.stream(values).sum(), 1e-5 * size, "sum of " + expected.name());
    }
  }
}
