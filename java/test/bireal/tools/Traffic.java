package bireal.tools;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.Precision;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.Emulator;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Planner;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Shape;
import bireal.train.TrainStep;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What one mixed-precision training step of Bi-Real Net-18 moves on a GPU, as the emulator counts
 * it: distinct 32-byte sectors of each kernel. Two runs, of one and of two images, give what a
 * launch moves once (a) and for each image (b); a batch of N moves a + b N. That is exact where
 * work is cut by images. Partial sums over rows grow with the images too, but only up to those of
 * {@link #MOST_BLOCKS} blocks (native/cuda/row_slices.h), so they are counted apart. So is what the
 * binary convolutions ask for: their blocks, as many as the GPU holds at once, load their weights
 * and then walk over the images. The emulated GPU has so few multiprocessors that one image is work
 * for all blocks, and what is asked for once a block is scaled to the blocks of the real one.
 */
public final class Traffic {
  private static final int BATCH = 512;

  // What a step may take at most; more ends with 1.

  /** Of our kernels at 224x224, bytes a block element. */
  private static final double MOST_BYTES = 31;

  /** Of kernels that move more than a hundredth of the step's bytes. */
  private static final double MOST_REQUESTED_OF_DISTINCT = 1.1;

  private static final int MOST_BANK_CONFLICT = 2;
  private static final int MOST_CALLS = 170;
  private static final int SIDE = 224;

  /** As row_slice_count of native/cuda/row_slices.h: slices times words of 32 channels. */
  private static final int MOST_BLOCKS = 1024;

  /** Of partial sums that one block leaves: two doubles for each of 32 channels. */
  private static final int BLOCK_SUMS_BYTES = 2 * 32 * Double.BYTES;

  /** Below it one image is less than a tile of the convolutions for each of their blocks. */
  private static final int LEAST_SIDE = 128;

  /** Emulated multiprocessors, and those of the device whose compute capability is emulated. */
  private static final int FEW_MULTIPROCESSORS = 1;

  private static final int MULTIPROCESSORS = 108;

  /** Of the binary convolution's tensor-core kernels. */
  private static final int BLOCKS_OF_A_MULTIPROCESSOR = 2;

  private static final String USAGE =
      """
      usage: scripts/bench.sh traffic [--side PIXELS] [--width CHANNELS]
      Counts the memory traffic of a mixed-precision step on the emulator (default: 224x224, width 64;
      a minute or two; at least 128x128), scaled to a batch of 512 images. Nothing is timed; no GPU is needed.
      Ends with 1 where a step moves more bytes, asks for more sectors, has more launches or worse bank conflicts than it may.
      """;

  private static final class Row {
    int launches;
    double bytes;
    double requested;
    double onceBytes; // of them, what does not grow with the images
    double onceRequested;
    int worstBankConflict;
  }

  /**
   * What the performance model expects of a step at 224x224, width 64, batch 512, with each
   * activation read and written once a pass and the binary gradients left to cuDNN.
   */
  private record Expected(String what, String names, double gigabytes) {}

  private static final List<Expected> MODEL =
      List.of(
          new Expected(
              "binary convolution, BN, shortcut, signs",
              "binary_conv_.*|batch_norm_apply_.*_i16_kernel",
              1.65 + 4.72),
          new Expected(
              "approx-sign, shortcut, sums of the BN before",
              "approx_sign_.*|batch_norm_bwd_sums_.*",
              6.88 + 3.08),
          new Expected(
              "BN, backward", "batch_norm_bwd_apply_.*|batch_norm_bwd_coefficients_.*", 4.62),
          new Expected("bits as 16-bit values", "sign_unpack_.*", 1.83),
          new Expected(
              "gradients of binary convolutions, stem's too",
              "cudnnConvolutionBackward.*",
              3.26 + 3.26),
          new Expected(
              "stem, downsampling",
              "batch_norm_max_pool_.*|cudnnConvolutionForward|avg_pool_.*|cublas.*"
                  + "|batch_norm_sums_.*|batch_norm_apply_f16_f16_kernel",
              6.38 + 2.34),
          new Expected(
              "update, casts of weights and gradients",
              "adam_.*|finite_norm_.*|cast_.*|batch_norm_commit_.*",
              0.40));

  private static final int MODEL_CALLS = 154;

  private Traffic() {}

  public static void main(String[] args) {
    int side = SIDE;
    int width = 64;
    for (int i = 0; i < args.length; i += 2) {
      if (i + 1 == args.length || !args[i].matches("--side|--width")) {
        System.err.print(USAGE);
        System.exit(2);
      }
      int value = Integer.parseInt(args[i + 1]);
      if (args[i].equals("--side")) {
        side = value;
      } else {
        width = value;
      }
    }
    if (side < LEAST_SIDE) {
      System.err.print(USAGE);
      System.exit(2);
    }
    if (System.getProperty("bireal.emulator") == null) {
      System.setProperty("bireal.emulator", "target/native-test/emulator");
    }
    Emulator.load();
    NetworkConfig config =
        new NetworkConfig(
            NetworkConfig.Family.BIREALNET,
            18,
            width,
            1000,
            NetworkConfig.Stem.IMAGENET,
            NetworkConfig.Weights.AUTO,
            NetworkConfig.Nonlinearity.AUTO,
            WeightGradient.CLIPPED,
            ActivationGradient.APPROX_SIGN,
            NetworkConfig.Init.KAIMING);
    List<Emulator.Work> one = step(config, side, 1);
    List<Emulator.Work> two = step(config, side, 2);
    if (one.size() != two.size()) {
      throw new IllegalStateException(
          "one image takes " + one.size() + " launches, two take " + two.size());
    }
    List<String> tooMuch = report(config, side, one, two);
    tooMuch.forEach(each -> System.err.println("traffic: error: " + each));
    System.exit(tooMuch.isEmpty() ? 0 : 1);
  }

  /** The records of one step of {@code images}, without those of loading the images. */
  private static List<Emulator.Work> step(NetworkConfig config, int side, int images) {
    Emulator.reset();
    Emulator.set("memory_limit", 64L << 30);
    Emulator.set("multiprocessors", FEW_MULTIPROCESSORS);
    Emulator.set("race_checks", 0); // counts are the same without them
    OptimizerConfig adam =
        new OptimizerConfig(
            OptimizerConfig.Type.ADAM,
            1e-3,
            BATCH,
            0.9,
            0.999,
            1e-8,
            0,
            SgdForm.PYTORCH,
            0,
            OptimizerConfig.Decayed.ALL);
    try (Backend backend = CudaBackend.open(0, false);
        Network net =
            new Network(
                config,
                Shape.of(side, side, 3),
                new Planner(backend, images, Precision.MIXED.real, Gradient.AUTO));
        TrainStep step = new TrainStep(net, adam, 0, false)) {
      net.allocate();
      net.initialize(1);
      step.startLossScale(List.of());
      ByteBuffer pixels = Tensors.buffer(net.input());
      for (int i = 0; pixels.hasRemaining(); i++) {
        pixels.putShort((short) (0x3000 + i * 7919 % 0xb00 + (i % 3 == 0 ? 0x8000 : 0)));
      }
      backend.write(net.input(), pixels.flip());
      backend.zero(net.labels());
      step.begin(1, 1e-3);
      Tensors.read(backend, net.planner().step().state()); // waits
      Emulator.clear();
      step.lastMicroBatch(images, images);
      step.finish();
      return Emulator.allRecords();
    }
  }

  /** Prints the table; what is more than it may be. */
  private static List<String> report(
      NetworkConfig config, int side, List<Emulator.Work> one, List<Emulator.Work> two) {
    List<String> over = new ArrayList<>();
    Map<Emulator.Kind, Map<String, Row>> kinds = new LinkedHashMap<>();
    for (int i = 0; i < one.size(); i++) {
      Emulator.Work a = one.get(i);
      Emulator.Work b = two.get(i);
      if (!a.name().equals(b.name())) {
        throw new IllegalStateException(i + ": " + a.name() + " and " + b.name());
      }
      Row row =
          kinds
              .computeIfAbsent(a.kind(), k -> new LinkedHashMap<>())
              .computeIfAbsent(a.name(), k -> new Row());
      row.launches++;
      double tooMuch = partialSums(a, b, 2L * config.width() * (side / 4) * (side / 4));
      row.bytes += scaled(a.sectorBytes(), b.sectorBytes()) - tooMuch;
      row.requested += 32 * requested(a, b) - tooMuch;
      row.onceBytes += Math.max(0, 2 * a.sectorBytes() - b.sectorBytes());
      row.onceRequested +=
          Math.max(
              0, 32 * (requested(a, b) - BATCH * (b.requestedSectors() - a.requestedSectors())));
      row.worstBankConflict = Math.max(row.worstBankConflict, b.worstBankConflict());
    }
    double elements = BATCH * blockElements(config.width(), side);
    // The limits are those of 224x224: of smaller images, what moves once is too large a part.
    double growth = blockElements(config.width(), SIDE) / blockElements(config.width(), side);
    double scaledBytes = 0;
    int calls = 0;
    for (Emulator.Kind kind : new Emulator.Kind[] {Emulator.Kind.KERNEL, Emulator.Kind.LIBRARY}) {
      Map<String, Row> rows = kinds.getOrDefault(kind, Map.of());
      double total = rows.values().stream().mapToDouble(r -> r.bytes).sum();
      System.out.printf(
          Locale.ROOT,
          "%n%-44s %8s %9s %7s %9s %10s %6s%n",
          kind == Emulator.Kind.KERNEL ? "our kernels" : "library calls, operands once",
          "launches",
          "MB",
          "%",
          "B/element",
          "req/dist",
          "banks");
      List<Map.Entry<String, Row>> sorted = new ArrayList<>(rows.entrySet());
      sorted.sort(Comparator.comparingDouble(e -> -e.getValue().bytes));
      for (Map.Entry<String, Row> e : sorted) {
        Row r = e.getValue();
        System.out.printf(
            Locale.ROOT,
            "%-44s %8d %9.1f %7.1f %9.2f %10s %6s%n",
            e.getKey(),
            r.launches,
            r.bytes / 1e6,
            100 * r.bytes / total,
            r.bytes / elements,
            kind == Emulator.Kind.KERNEL
                ? String.format(Locale.ROOT, "%.3f", r.requested / r.bytes)
                : "",
            kind == Emulator.Kind.KERNEL ? Integer.toString(r.worstBankConflict) : "");
        calls += r.launches;
        if (kind == Emulator.Kind.KERNEL) {
          if (r.worstBankConflict > MOST_BANK_CONFLICT) {
            over.add(
                e.getKey()
                    + ": bank conflicts of "
                    + r.worstBankConflict
                    + ", at most "
                    + MOST_BANK_CONFLICT);
          }
          double bytes = r.onceBytes + growth * (r.bytes - r.onceBytes);
          double ratio = (r.onceRequested + growth * (r.requested - r.onceRequested)) / bytes;
          scaledBytes += bytes;
          if (r.bytes > total / 100 && ratio > MOST_REQUESTED_OF_DISTINCT) {
            over.add(
                String.format(
                    Locale.ROOT,
                    "%s asks for %.3f times its sectors, at most %.1f",
                    e.getKey(),
                    ratio,
                    MOST_REQUESTED_OF_DISTINCT));
          }
        }
      }
      System.out.printf(
          Locale.ROOT,
          "%-44s %8d %9.1f %7s %9.2f%n",
          "total",
          rows.values().stream().mapToInt(r -> r.launches).sum(),
          total / 1e6,
          "",
          total / elements);
    }
    int memsets =
        kinds.getOrDefault(Emulator.Kind.MEMSET, Map.of()).values().stream()
            .mapToInt(r -> r.launches)
            .sum();
    System.out.printf(
        Locale.ROOT,
        "%nlaunches and library calls of a step: %d (at most %d), and %d memsets%n"
            + "bytes a block element at 224x224: %.2f (at most %.0f)%n"
            + "block elements: %.0f M (mean of inputs and outputs of the binary convolutions, batch %d)%n",
        calls,
        MOST_CALLS,
        memsets,
        scaledBytes / elements / growth,
        MOST_BYTES,
        elements / 1e6,
        BATCH);
    if (side == SIDE && config.width() == 64) {
      printModel(kinds, calls);
    }
    if (scaledBytes / elements / growth > MOST_BYTES) {
      over.add("our kernels move more bytes a block element than " + MOST_BYTES);
    }
    if (calls > MOST_CALLS) {
      over.add(calls + " launches and library calls, at most " + MOST_CALLS);
    }
    return over;
  }

  private static void printModel(Map<Emulator.Kind, Map<String, Row>> kinds, int calls) {
    System.out.printf(
        Locale.ROOT, "%n%-46s %10s %10s%n", "beside the performance model", "model", "counted");
    double rest = 0; // what no group has
    for (Map<String, Row> rows : kinds.values()) {
      rest += rows.values().stream().mapToDouble(row -> row.bytes).sum();
    }
    for (Expected each : MODEL) {
      double bytes = 0;
      for (Map<String, Row> rows : kinds.values()) {
        for (Map.Entry<String, Row> row : rows.entrySet()) {
          bytes += row.getKey().matches(each.names()) ? row.getValue().bytes : 0;
        }
      }
      System.out.printf(
          Locale.ROOT, "%-46s %7.2f GB %7.2f GB%n", each.what(), each.gigabytes(), bytes / 1e9);
      rest -= bytes;
    }
    System.out.printf(Locale.ROOT, "%-46s %10s %7.2f GB%n", "all else", "", rest / 1e9);
    System.out.printf(
        Locale.ROOT, "%-46s %10d %10d%n", "launches and library calls", MODEL_CALLS, calls);
  }

  /**
   * By how many bytes {@link #scaled} counts the partial sums too high that a launch writes or
   * reads. {@code largest} is an image's largest activation, in bytes; the others are halves,
   * quarters and eighths of it.
   */
  private static double partialSums(Emulator.Work one, Emulator.Work two, long largest) {
    if (one.name().startsWith("batch_norm_bwd_coefficients")
        || one.name().startsWith("batch_norm_statistics")) { // reads little else
      double scaled = scaled(one.sectorBytes(), two.sectorBytes());
      double most = (double) MOST_BLOCKS * BLOCK_SUMS_BYTES * one.gridY(); // of each norm
      return Math.max(0, scaled - one.sectorBytes() - most);
    }
    long gradient = 0; // written beside the sums
    if (one.name().startsWith("approx_sign_bwd_")) {
      gradient = largest;
      while (gradient > 32 * one.writtenSectors()) {
        gradient /= 2;
      }
    } else if (!one.name().startsWith("batch_norm_sums_")
        && !one.name().startsWith("batch_norm_bwd_sums_")) {
      return 0;
    }
    double first = 32.0 * one.writtenSectors() - gradient;
    double second = 32.0 * two.writtenSectors() - 2 * gradient;
    double scaled = first + (BATCH - 1) * (second - first);
    return Math.max(0, scaled - first / one.blocks() * MOST_BLOCKS);
  }

  /** Sectors that the batch asks for. */
  private static double requested(Emulator.Work one, Emulator.Work two) {
    double scaled = scaled(one.requestedSectors(), two.requestedSectors());
    if (!one.name().matches("binary_conv_(fwd|sums|apply)_mma_.*")) {
      return scaled;
    }
    if (one.blocks() != two.blocks()) {
      throw new IllegalStateException(
          one.name() + ": " + one.blocks() + " blocks for an image, " + two.blocks() + " for two");
    }
    double onceABlock =
        (2.0 * one.requestedSectors() - two.requestedSectors()) / Math.max(one.blocks(), 1);
    return scaled + onceABlock * (BLOCKS_OF_A_MULTIPROCESSOR * MULTIPROCESSORS - one.blocks());
  }

  private static double scaled(long one, long two) {
    return one + (BATCH - 1.0) * (two - one);
  }

  /**
   * Of one image: the mean of the elements that enter and that leave the 16 binary convolutions.
   */
  private static double blockElements(int width, int side) {
    double sum = 0;
    int in = width;
    int pixels = side / 4;
    for (int stage = 0; stage < 4; stage++) {
      int out = width << stage;
      for (int block = 0; block < 4; block++) {
        int before = pixels;
        if (stage > 0 && block == 0) {
          pixels /= 2;
        }
        sum += ((double) before * before * in + (double) pixels * pixels * out) / 2;
        in = out;
      }
    }
    return sum;
  }
}
