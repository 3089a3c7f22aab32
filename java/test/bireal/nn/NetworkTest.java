package bireal.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.Tensors;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** What every network has in common: published names and counts, threads, refused shapes. */
class NetworkTest {
  private static NetworkConfig config(
      String network, int depth, int width, NetworkConfig.Stem stem, String weights) {
    NetworkConfig.Family family = NetworkConfig.Family.valueOf(network);
    return new NetworkConfig(
        family,
        depth,
        width,
        width == 64 ? 1000 : 5,
        stem,
        NetworkConfig.Weights.valueOf(weights),
        family == NetworkConfig.Family.REALNET
            ? NetworkConfig.Nonlinearity.LEAKY_CLIP
            : NetworkConfig.Nonlinearity.AUTO,
        WeightGradient.CLIPPED,
        ActivationGradient.APPROX_SIGN,
        NetworkConfig.Init.KAIMING);
  }

  @ParameterizedTest
  @CsvSource({
    "BIREALNET, 18, 11689512, 122",
    "BIREALNET, 34, 21797672, 218",
    "BIREALNET, 50, 25730088, 324",
    "REACTNET, 18, 11704424, 186",
    "REACTNET, 34, 21827432, 346",
    "REALNET, 18, 11689512, 122",
    "REALNET, 34, 21797672, 218",
    "RESNET, 18, 11689512, 122", // torchvision's, as known of old
    "RESNET, 34, 21797672, 218",
    // Row 15: as RESNET, but BN of the block's input in place of that behind the second
    // convolution,
    // narrower by half in three blocks (2 (512 - 64) less), and one more at the end (2 512).
    "XNORNET, 18, 11689640, 127"
  })
  void parametersAndEntriesCountAsPublished(String network, int depth, long count, int entries) {
    for (String weights : List.of("AUTO", network.equals("REACTNET") ? "REAL" : "AUTO")) {
      NetworkConfig config = config(network, depth, 64, NetworkConfig.Stem.IMAGENET, weights);
      try (Backend backend = CpuBackend.open(1);
          Network net =
              new Network(config, Shape.of(64, 64, 3), new Planner(backend, 1, Gradient.FP32))) {
        Planner planner = net.planner();
        assertEquals(count, planner.parameters().stream().mapToLong(p -> p.shape().count()).sum());
        assertEquals(entries, planner.states().size());
        // What 'bireal info' adds up.
        assertEquals(
            count, planner.layers().stream().mapToLong(Planner.LayerRow::parameters).sum());
      }
    }
  }

  /** The listings of docs/networks.md, expanded: names in order, and shapes. */
  @ParameterizedTest
  @CsvSource({
    "BIREALNET, 18, '## Appendix A'",
    "REALNET, 18, '## Appendix A'",
    "REACTNET, 18, 'ReActNet-R18 (step 1 = step 2)'",
    "BIREALNET, 50, 'Bi-Real 50, 324 entries'"
  })
  void namesShapesAndOrderAreThoseOfThePublishedStateDict(String network, int depth, String heading)
      throws IOException {
    String text = Files.readString(Path.of("docs/networks.md"));
    String after = text.substring(text.indexOf("\n" + heading));
    String listing = after.substring(after.indexOf("```\n") + 4);
    listing = listing.substring(0, listing.indexOf("```"));
    List<String> expected = new ArrayList<>();
    for (String line : listing.strip().split("\n")) {
      String[] parts = line.strip().split("\\s+", 2);
      if (parts[1].startsWith("BN{")) {
        String channels = parts[1].substring(3, parts[1].indexOf('}'));
        for (String entry : List.of("weight", "bias", "running_mean", "running_var")) {
          expected.add(parts[0] + "." + entry + " [" + channels + "]");
        }
        expected.add(parts[0] + ".num_batches_tracked []");
      } else {
        String shape = parts[1].substring(parts[1].indexOf('(') + 1, parts[1].indexOf(')'));
        String dims = shape.endsWith(",") ? shape.substring(0, shape.length() - 1) : shape;
        expected.add(parts[0] + " [" + dims + "]");
      }
    }
    NetworkConfig config = config(network, depth, 64, NetworkConfig.Stem.IMAGENET, "AUTO");
    try (Backend backend = CpuBackend.open(1);
        Network net = new Network(config, Shape.of(64, 64, 3), new Planner(backend, 1, null))) {
      assertEquals(
          expected,
          net.planner().states().stream()
              .map(s -> s.name() + " " + Arrays.toString(s.publishedDims()))
              .toList());
    }
  }

  static List<NetworkConfig> every() {
    List<NetworkConfig> configs = new ArrayList<>();
    for (NetworkConfig.Stem stem : NetworkConfig.Stem.values()) {
      configs.add(config("BIREALNET", 50, 8, stem, "AUTO"));
      configs.add(config("XNORNET", 18, 8, stem, "AUTO"));
      configs.add(config("REACTNET", 18, 8, stem, "BINARY"));
      configs.add(config("REACTNET", 18, 8, stem, "REAL"));
      configs.add(config("REALNET", 18, 8, stem, "AUTO"));
      configs.add(config("RESNET", 18, 8, stem, "AUTO"));
    }
    return configs;
  }

  /**
   * Logits and gradients of two micro-batches, the second smaller, then the logits of inference.
   */
  private static Map<String, float[]> run(NetworkConfig config, int threads) {
    int side = config.stem() == NetworkConfig.Stem.IMAGENET ? 64 : 16;
    Map<String, float[]> made = new TreeMap<>();
    try (Backend backend = CpuBackend.open(threads);
        Network net =
            new Network(
                config, Shape.of(side, side, 3), new Planner(backend, 5, Gradient.FIXED16))) {
      net.allocate();
      net.initialize(4);
      long seed = Rng.state(4, "images");
      float[] pixels = new float[5 * side * side * 3];
      for (int i = 0; i < pixels.length; i++) {
        pixels[i] = (float) (4 * Rng.uniform(seed, i) - 2);
      }
      Tensors.write(backend, net.input(), pixels);
      for (GradMode mode : GradMode.values()) {
        int n = mode == GradMode.OVERWRITE ? 5 : 3;
        net.forward(n, Pass.TRAIN);
        float[] logits = Tensors.floats(backend, net.logits());
        made.put("logits " + mode, logits);
        Tensors.write(backend, net.logitsGradient(), logits); // of half their square
        net.backward(n, mode);
      }
      try (Update update =
          backend.planUpdate(net.planner().updateSpec(List.of(new UpdateSpec.Segment(0, 1, 0))))) {
        backend.batchNormCommit(update, net.planner().step(), 2);
      }
      for (Parameter parameter : net.planner().parameters()) {
        made.put("d " + parameter.name(), net.publishedGradient(parameter));
      }
      net.forward(5, Pass.EVALUATE);
      made.put("logits of inference", Tensors.floats(backend, net.logits()));
    }
    return made;
  }

  /** Logits of inference of 11 images, then of the first 7 of them. */
  private static List<float[]> evaluate(NetworkConfig config, int threads, Gradient gradient) {
    int side = config.stem() == NetworkConfig.Stem.IMAGENET ? 64 : 16;
    List<float[]> made = new ArrayList<>();
    try (Backend backend = CpuBackend.open(threads);
        Network net =
            new Network(config, Shape.of(side, side, 3), new Planner(backend, 11, gradient))) {
      net.allocate();
      net.initialize(5);
      long seed = Rng.state(5, "images");
      float[] pixels = new float[11 * side * side * 3];
      for (int i = 0; i < pixels.length; i++) {
        pixels[i] = (float) (4 * Rng.uniform(seed, i) - 2);
      }
      Tensors.write(backend, net.input(), pixels);
      for (int n : new int[] {11, 7}) {
        net.forward(n, Pass.EVALUATE);
        made.add(Arrays.copyOf(Tensors.floats(backend, net.logits()), n * 5));
      }
    }
    return made;
  }

  /**
   * With one thread it takes 4 images at a time, with two and three that in each lane, with 16 all
   * at a time; and it reuses its memory.
   */
  @ParameterizedTest
  @MethodSource("every")
  void aNetworkPlannedForEvaluationAgreesWithOneForTrainingToTheBit(NetworkConfig config) {
    List<float[]> expected = evaluate(config, 1, Gradient.FP32);
    for (int threads : new int[] {1, 2, 3, 16}) {
      List<float[]> got = evaluate(config, threads, null);
      for (int i = 0; i < expected.size(); i++) {
        assertArrayEquals(expected.get(i), got.get(i), threads + " threads");
      }
    }
  }

  @ParameterizedTest
  @MethodSource("every")
  void oneAndThreeThreadsAgreeToTheBit(NetworkConfig config) {
    Map<String, float[]> one = run(config, 1);
    Map<String, float[]> three = run(config, 3);
    assertEquals(one.keySet(), three.keySet());
    one.forEach(
        (name, values) -> {
          assertArrayEquals(values, three.get(name), name);
          float largest = 0;
          for (float value : values) {
            assertTrue(Float.isFinite(value), name);
            largest = Math.max(largest, Math.abs(value));
          }
          // Each parameter but the one that is published without a use takes part.
          assertEquals(name.equals("d layers.0.down_conv1x1.weight"), largest == 0, name);
        });
  }

  @ParameterizedTest
  @MethodSource("every")
  void imagesThatDoNotHalveEvenlyAreRefusedWhilePlanningWherePoolingWouldRoundDown(
      NetworkConfig config) {
    int side = config.stem() == NetworkConfig.Stem.IMAGENET ? 72 : 18;
    try (Backend backend = CpuBackend.open(1)) {
      boolean pools =
          config.network() != NetworkConfig.Family.RESNET
              && config.network() != NetworkConfig.Family.XNORNET;
      if (pools) {
        IllegalArgumentException e =
            assertThrows(
                IllegalArgumentException.class,
                () ->
                    new Network(
                        config, Shape.of(side, side, 3), new Planner(backend, 2, Gradient.FP32)));
        assertTrue(
            e.getMessage().contains(".downsample: a stride-2 block needs an even input, got 9x9"),
            e.getMessage());
      } else { // a strided convolution rounds up on both ways
        try (Network net =
            new Network(config, Shape.of(side, side, 3), new Planner(backend, 2, Gradient.FP32))) {
          assertEquals(5, net.logits().shape().dim(1));
        }
      }
    }
  }

  /**
   * The Caffe recipe's last stage: masters of +-1 have scale 1, so the network is that of signs.
   */
  @Test
  void weightsOfPlusAndMinusOneHaveScaleOne() {
    NetworkConfig config = config("BIREALNET", 18, 8, NetworkConfig.Stem.CIFAR, "AUTO");
    try (Backend backend = CpuBackend.open(1);
        Network net = new Network(config, Shape.of(16, 16, 3), new Planner(backend, 2, null))) {
      net.allocate();
      net.initialize(1);
      for (Parameter parameter : net.planner().parameters()) {
        if (parameter.binary()) {
          float[] values = net.published(parameter);
          for (int i = 0; i < values.length; i++) {
            values[i] = values[i] < 0 ? -1 : 1;
          }
          net.setPublished(parameter, values);
        }
      }
      net.refresh();
      int convolutions = 0;
      for (Layer layer : net.planner().owned()) {
        if (layer instanceof BinaryConv2d conv) {
          convolutions++;
          for (float alpha : Tensors.floats(backend, conv.alpha())) {
            assertEquals(1f, alpha);
          }
        }
      }
      assertEquals(16, convolutions);
    }
  }
}
