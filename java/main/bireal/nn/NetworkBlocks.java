package bireal.nn;

import java.util.ArrayList;
import java.util.List;

/** The blocks of each network between images and head: the one place that says which. */
final class NetworkBlocks {
  /** A block, and the name of its output where it ends something that has one; else null. */
  record Placed(Block block, String landmark) {}

  private NetworkBlocks() {}

  /**
   * Blocks of each stage. Bi-Real Net and its kin count one convolution a block, so twice as many
   * as the ResNets that they come from.
   */
  private static int[] counts(NetworkConfig config) {
    int perBlock =
        switch (config.network()) {
          case BIREALNET, REACTNET, REALNET -> config.depth() == 50 ? 1 : 2;
          case XNORNET, RESNET -> 1;
        };
    int[] resnet = config.depth() == 18 ? new int[] {2, 2, 2, 2} : new int[] {3, 4, 6, 3};
    for (int stage = 0; stage < resnet.length; stage++) {
      resnet[stage] *= perBlock;
    }
    return resnet;
  }

  /** {@code stem} is the first. */
  static List<Placed> of(NetworkConfig config, Stem stem) {
    List<Placed> placed = new ArrayList<>();
    placed.add(new Placed(stem, "stem"));
    int[] counts = counts(config);
    int C = config.width();
    BottleneckBlock bottleneck = null;
    for (int stage = 0; stage < counts.length; stage++) {
      int K = config.width() << stage;
      for (int i = 0; i < counts[stage]; i++) {
        int stride = stage > 0 && i == 0 ? 2 : 1;
        String name = "layer" + (stage + 1) + "." + i;
        String end = i == counts[stage] - 1 ? "layer" + (stage + 1) : null;
        if (config.depth() == 50) {
          name = "layers." + (placed.size() - 1); // published as one list, whatever the stage
          bottleneck = new BottleneckBlock(config, name, bottleneck, 4 * K, stride);
          placed.add(new Placed(bottleneck, name));
        } else {
          Block block =
              switch (config.network()) {
                case BIREALNET, REACTNET, REALNET -> new BiRealBlock(config, name, C, K, stride);
                case XNORNET -> new XnorBlock(config, name, K, stride);
                case RESNET -> new ResNetBlock(config, name, K, stride);
              };
          placed.add(new Placed(block, end));
        }
        C = K;
      }
    }
    if (config.network() == NetworkConfig.Family.XNORNET) {
      placed.add(new Placed(new NormReluBlock("final.0"), null));
    }
    return placed;
  }
}
