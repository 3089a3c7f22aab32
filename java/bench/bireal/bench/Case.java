package bireal.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Set;
import java.util.SplittableRandom;

/**
 * What both sides of the comparison are given, and how each is timed: Bi-Real-18 on a batch that
 * lies in memory.
 *
 * @param side pixels
 * @param width channels of the first stage
 * @param batch images
 * @param imagenetStem 7x7/2 convolution and max-pool, else one 3x3 convolution
 */
record Case(int side, int channels, int width, int classes, int batch, boolean imagenetStem) {
  static final double LEARNING_RATE = 1e-3;

  /** First convolution, a binary one in the middle, and the end of the network. */
  static final Set<String> COMPARED_GRADIENTS =
      Set.of("conv1.weight", "layer3.1.bn1.weight", "fc.weight");

  static Case of(String name) {
    return switch (name) {
      case "224" -> new Case(224, 3, 64, 1000, 16, true);
      case "32" -> new Case(32, 1, 32, 10, 128, false);
      default -> throw new IllegalArgumentException("case must be 224 or 32, got " + name);
    };
  }

  /**
   * The same network on few pixels, where no sign is likely to hang on float rounding: one that
   * does changes the signs of a few dozen values behind it, and soon everything.
   */
  Case small() {
    return new Case(imagenetStem ? 64 : 32, channels, width, classes, 2, imagenetStem);
  }

  /** [batch][side][side][channels], in -1..1. */
  float[] images() {
    float[] images = new float[batch * side * side * channels];
    SplittableRandom random = new SplittableRandom(1);
    for (int i = 0; i < images.length; i++) {
      images[i] = (float) random.nextDouble(-1, 1);
    }
    return images;
  }

  int[] labels() {
    int[] labels = new int[batch];
    for (int i = 0; i < batch; i++) {
      labels[i] = i * 7 % classes;
    }
    return labels;
  }

  /** Median seconds of {@code count} runs after a quarter as many that are not timed. */
  static double median(int count, Runnable run) {
    double[] seconds = new double[count];
    for (int i = -count / 4 - 1; i < count; i++) {
      long start = System.nanoTime();
      run.run();
      if (i >= 0) {
        seconds[i] = (System.nanoTime() - start) / 1e9;
      }
    }
    Arrays.sort(seconds);
    return seconds[count / 2];
  }

  /** One line for bench.sh: images a second, peak of resident memory in MiB, remark. */
  void report(double seconds, String remark) throws IOException {
    long peak = 0;
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmHWM:")) {
        peak = Long.parseLong(line.replaceAll("\\D", "")) / 1024;
      }
    }
    System.out.printf("RESULT %.2f %d %s%n", batch / seconds, peak, remark);
  }
}
