package bireal.tools;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.ImageSpec;
import bireal.backend.Plan;
import bireal.backend.Precision;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightGradient;
import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.CudaDevice;
import bireal.backend.cuda.DeviceClock;
import bireal.nn.MemoryException;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Planner;
import bireal.optim.OptimizerConfig;
import bireal.runtime.DeviceException;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import bireal.train.TrainStep;
import java.lang.reflect.Method;
import java.lang.reflect.RecordComponent;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Speed of the CUDA backend on the device that is there: whole steps of Bi-Real Net-18, replayed as
 * graphs, and every op of such a step against its floor, which is the larger of
 *
 * <ul>
 *   <li>the bytes of its tensors, each once for every time it is an argument, at the rate of a
 *       measured device copy;
 *   <li>its multiply-accumulates at the rate of a measured product of 4096x4096 matrices of the
 *       same type; for binary convolution forward, at what population counts allow at the top
 *       clock, which tensor cores exceed.
 * </ul>
 *
 * <p>{@code GpuBench list} names the devices; {@code GpuBench run|smoke BATCH STEPS} measures;
 * smoke is the same with a network of a few pixels, whose figures mean nothing. Ends with 3 where
 * there is no device or library, with 4 if an op that takes more than 1% of the step needs more
 * than twice its floor.
 */
public final class GpuBench {
  private static final int MISSING = 3;
  private static final int SLOW = 4;
  private static final double SLOW_BELOW = 0.5;
  private static final double COUNTS_FROM = 0.01;
  private static final double SHOWN_FROM = 0.001;

  /** {@code side} pixels; products and copies for the rates have {@code size} and its square. */
  private record Sizes(int side, int width, int classes, int size) {}

  /** What one op must do at least; MACs on bits, or on real numbers. */
  private record Work(String what, long bytes, long binaryMacs, long realMacs) {}

  /** All calls with the same work. */
  private static final class Row {
    final Work work;
    int calls;
    double ms;

    Row(Work work) {
      this.work = work;
    }
  }

  /** Bytes a second of a copy (read and written), MACs a second. */
  private record Rates(double copy, double product, double popcount) {
    double floorMs(Work work) {
      return 1e3
          * Math.max(
              work.bytes / copy, Math.max(work.realMacs / product, work.binaryMacs / popcount));
    }
  }

  private final Sizes sizes;
  private final int steps;

  private GpuBench(Sizes sizes, int steps) {
    this.sizes = sizes;
    this.steps = steps;
  }

  public static void main(String[] args) {
    if (args[0].equals("list")) {
      list();
      return;
    }
    boolean smoke = args[0].equals("smoke");
    GpuBench bench =
        new GpuBench(
            smoke ? new Sizes(64, 8, 4, 64) : new Sizes(224, 64, 1000, 4096),
            Integer.parseInt(args[2]));
    boolean slow = false;
    for (Precision precision : List.of(Precision.FP32, Precision.MIXED)) {
      try {
        slow |= bench.measure(precision, Integer.parseInt(args[1]));
      } catch (MemoryException e) { // known before anything runs: neither wrong nor slow
        System.out.println(e.getMessage());
        System.out.printf(
            "RESULT bireal %-22s not measured: %s%n",
            precision.name().toLowerCase(Locale.ROOT),
            e.getMessage().lines().findFirst().orElse("")
                + " "
                + e.getMessage().lines().reduce((a, b) -> b).orElse(""));
      }
    }
    System.exit(slow ? SLOW : 0);
  }

  private static void list() {
    try {
      List<CudaDevice> devices = CudaDevice.list();
      for (CudaDevice device : devices) {
        System.out.printf(
            Locale.ROOT,
            "device %d: %s, compute capability %s, %,d MiB, driver for CUDA %s, cuBLAS %s, cuDNN %s%n",
            device.ordinal(),
            device.name(),
            device.computeCapability(),
            device.memoryBytes() >> 20,
            device.driverVersion(),
            device.blasVersion(),
            device.dnnVersion());
        System.out.println("  kernels: " + device.kernels());
      }
      if (devices.isEmpty() || devices.get(0).kernels().startsWith("none")) {
        System.out.println(
            "no GPU that can be used: device 0 must be of compute capability 7.5 or newer");
        System.exit(MISSING);
      }
    } catch (DeviceException e) {
      System.out.println(e.getMessage());
      System.exit(MISSING);
    }
  }

  /** Whether something is slow. */
  private boolean measure(Precision precision, int batch) {
    String name = precision.name().toLowerCase(Locale.ROOT);
    try (CudaBackend cuda = CudaBackend.open(0)) {
      DeviceClock clock = new DeviceClock(cuda);
      Backend backend = clock.backend();
      Rates rates = rates(clock, backend, precision.real);
      System.out.printf(
          Locale.ROOT,
          "%n%s: %s; device copy %.0f GB/s, product %.2f TMAC/s, popcount at most %.1f TMAC/s%n",
          name,
          backend.description(),
          rates.copy / 1e9,
          rates.product / 1e12,
          rates.popcount / 1e12);
      boolean slow = step(clock, backend, precision, batch, rates);
      clock.close();
      return slow;
    }
  }

  private boolean step(
      DeviceClock clock, Backend backend, Precision precision, int batch, Rates rates) {
    NetworkConfig config =
        new NetworkConfig(
            NetworkConfig.Family.BIREALNET,
            18,
            sizes.width,
            sizes.classes,
            NetworkConfig.Stem.IMAGENET,
            NetworkConfig.Weights.BINARY,
            NetworkConfig.Nonlinearity.SIGN,
            WeightGradient.CLIPPED,
            ActivationGradient.APPROX_SIGN,
            NetworkConfig.Init.KAIMING);
    OptimizerConfig adam =
        new OptimizerConfig(
            OptimizerConfig.Type.ADAM,
            1e-3,
            batch,
            0.9,
            0.999,
            1e-8,
            0,
            SgdForm.PYTORCH,
            0,
            OptimizerConfig.Decayed.ALL);
    int side = sizes.side;
    long free = backend.availableBytes();
    try (Network network =
            new Network(
                config,
                Shape.of(side, side, 3),
                new Planner(backend, batch, precision.real, Gradient.FP32));
        TrainStep step = new TrainStep(network, adam, 0.1, false)) {
      Planner planner = network.planner();
      ImageSpec spec = new ImageSpec(side, side, 3, side, side, 0);
      Tensor pixels = planner.persist(Shape.of(batch, side, side, 3), DType.U8);
      Tensor crops = planner.persist(Shape.of(batch, 3), DType.I32); // zeros: as they are
      Tensor mean = planner.persist(Shape.of(3), DType.F64);
      Tensor std = planner.persist(Shape.of(3), DType.F64);
      network.allocate();
      network.initialize(0);
      network.refresh();
      step.startLossScale(List.of());
      Tensors.write(backend, mean, new double[] {0.45, 0.45, 0.45});
      Tensors.write(backend, std, new double[] {0.225, 0.225, 0.225});
      SplittableRandom random = new SplittableRandom(1);
      byte[] bytes = new byte[Math.toIntExact(pixels.bytes())];
      random.nextBytes(bytes);
      ByteBuffer images = ByteBuffer.allocateDirect(bytes.length).put(bytes).flip();
      ByteBuffer labels = Tensors.buffer(network.labels());
      for (int i = 0; i < batch; i++) {
        labels.putInt(random.nextInt(sizes.classes));
      }
      backend.write(network.labels(), labels.flip());
      long[] number = {0};
      Runnable whole =
          () -> {
            backend.upload(pixels, images.duplicate());
            backend.awaitUploads();
            backend.imageNormalize(spec, batch, network.input(), pixels, crops, mean, std);
            backend.releaseUploads();
            step.begin(++number[0], 1e-3);
            step.microBatch(batch, batch);
            step.finish(); // reads the metrics, so it waits
          };
      // The first launches everything, the second records; until the loss scale fits, Adam rests.
      long skipped = -1;
      for (int i = 0; i < 20 && (i < 3 || skipped != step.skippedSteps()); i++) {
        skipped = step.skippedSteps();
        whole.run();
      }
      double[] seconds = new double[steps];
      for (int i = 0; i < steps; i++) {
        long start = System.nanoTime();
        whole.run();
        seconds[i] = (System.nanoTime() - start) / 1e9;
      }
      Arrays.sort(seconds);
      double median = seconds[steps / 2];
      List<DeviceClock.Timed> calls = new ArrayList<>();
      for (int i = 0; i < steps; i++) {
        clock.start();
        whole.run();
        calls.addAll(clock.stop());
      }
      boolean slow = print(calls, rates);
      System.out.printf(
          Locale.ROOT,
          "RESULT bireal %-22s %10.1f images/s %9.2f ms %8d MiB   batch %d, %d launches recorded, planned %d MiB%n",
          precision.name().toLowerCase(Locale.ROOT),
          batch / median,
          1e3 * median,
          (free - backend.availableBytes()) >> 20,
          batch,
          clock.launches(),
          planner.memoryBytes() >> 20);
      return slow;
    }
  }

  /** Measured on the device, the median of several. */
  private Rates rates(DeviceClock clock, Backend backend, DType real) {
    int size = sizes.size;
    long copied = 64L * size * size;
    double copy;
    try (Buffer a = backend.allocate(copied, "copy");
        Buffer b = backend.allocate(copied, "copy")) {
      Tensor from = new Tensor(a, 0, Shape.of(copied), DType.U8);
      Tensor to = new Tensor(b, 0, Shape.of(copied), DType.U8);
      copy = 2.0 * copied / seconds(clock, () -> backend.copy(to, from));
    }
    Shape square = Shape.of(size, size);
    try (Plan.Linear plan = backend.planLinear(size, size, size, real);
        Buffer x = backend.allocate(real.bytes(square), "product");
        Buffer w = backend.allocate(plan.weightType().bytes(square), "product");
        Buffer bias = backend.allocate(4L * size, "product");
        Buffer y = backend.allocate(real.bytes(square), "product");
        Buffer scratch = backend.allocate(Math.max(64, plan.workspaceBytes()), "product")) {
      double seconds =
          seconds(
              clock,
              () ->
                  backend.linearFwd(
                      plan,
                      size,
                      new Tensor(y, 0, square, real),
                      new Tensor(x, 0, square, real),
                      new Tensor(w, 0, square, plan.weightType()),
                      new Tensor(bias, 0, Shape.of(size), plan.weightType()),
                      new Tensor(scratch, 0, Shape.of(scratch.bytes()), DType.U8)));
      return new Rates(copy, (double) size * size * size / seconds, clock.popcountMacsPerSecond());
    }
  }

  private static double seconds(DeviceClock clock, Runnable op) {
    op.run();
    clock.start();
    for (int i = 0; i < 5; i++) {
      op.run();
    }
    double[] ms = clock.stop().stream().mapToDouble(DeviceClock.Timed::ms).sorted().toArray();
    return Math.max(ms[2], 1e-6) / 1e3;
  }

  // What an op must do.

  private static Work work(DeviceClock.Timed call) {
    Method op = call.op();
    Object[] args = call.arguments().toArray();
    long bytes = 0;
    long binaryMacs = 0;
    long realMacs = 0;
    String shape = null;
    for (int i = 0; i < args.length; i++) {
      if (op.getParameters()[i].getName().equals("workspace")) {
        continue; // how much of it an op uses is its own affair
      }
      if (args[i] instanceof Plan.BinaryConv plan) {
        long macs = plan.spec().macs() * plan.maxImages();
        binaryMacs = op.getName().matches("binaryConv(BatchNorm)?Fwd") ? macs : 0;
        realMacs = op.getName().startsWith("binaryConvBwd") ? macs : 0;
        shape = conv(plan.spec());
      } else if (args[i] instanceof Plan.Conv2d plan) {
        realMacs = plan.spec().macs() * plan.maxImages();
        shape = conv(plan.spec());
      } else if (args[i] instanceof Plan.Linear plan) {
        realMacs = (long) plan.C() * plan.K() * plan.maxImages();
        shape = plan.C() + " to " + plan.K();
      } else if (args[i] instanceof Update update) {
        bytes += update(op.getName(), update.spec());
      } else {
        List<Tensor> tensors = new ArrayList<>();
        collect(args[i], tensors);
        long more = tensors.stream().mapToLong(Tensor::bytes).sum();
        // Moments, which are read and written.
        bytes += op.getName().equals("adam") || op.getName().equals("sgd") ? 2 * more : more;
        if (shape == null && !tensors.isEmpty()) {
          shape = tensors.get(0).toString();
        }
      }
    }
    return new Work(op.getName() + " " + (shape == null ? "" : shape), bytes, binaryMacs, realMacs);
  }

  private static String conv(bireal.backend.Conv2dSpec s) {
    return String.format(
        "%dx%dx%d to %d, %dx%d/%d", s.H(), s.W(), s.C(), s.K(), s.R(), s.S(), s.stride());
  }

  /** A tensor, or those of a record. */
  private static void collect(Object argument, List<Tensor> tensors) {
    if (argument instanceof Tensor tensor) {
      tensors.add(tensor);
    } else if (argument instanceof Record) {
      for (RecordComponent part : argument.getClass().getRecordComponents()) {
        try {
          collect(part.getAccessor().invoke(argument), tensors);
        } catch (ReflectiveOperationException e) {
          throw new IllegalStateException(e);
        }
      }
    }
  }

  private static long update(String op, UpdateSpec spec) {
    long binary = spec.binary().stream().mapToLong(b -> b.w().bytes()).sum();
    return switch (op) {
      case "finiteNorm" -> spec.gradients().bytes() + 2 * binary; // their w, and what is left
      case "batchNormCommit" ->
          spec.norms().stream().mapToLong(n -> 4 * n.mean().bytes() + n.sums().bytes()).sum();
      default -> 2 * spec.parameters().bytes() + spec.gradients().bytes() + binary / 32;
    };
  }

  /** The table, slowest first; whether something is slow. */
  private boolean print(List<DeviceClock.Timed> calls, Rates rates) {
    Map<Work, Row> rows = new LinkedHashMap<>();
    double total = 0;
    for (DeviceClock.Timed call : calls) {
      Row row = rows.computeIfAbsent(work(call), Row::new);
      row.calls++;
      row.ms += call.ms();
      total += call.ms();
    }
    List<Row> sorted = new ArrayList<>(rows.values());
    sorted.sort((a, b) -> Double.compare(b.ms, a.ms));
    System.out.printf(
        "%-58s %5s %9s %6s %9s %8s %7s %9s %7s%n",
        "op of a step", "calls", "ms", "share", "MB", "GB/s", "% copy", "TMAC/s", "% floor");
    boolean anySlow = false;
    Row others = new Row(new Work("others, each below 0.1% of the step", 0, 0, 0));
    for (Row row : sorted) {
      double each = row.ms / row.calls;
      double share = row.ms / total;
      if (share < SHOWN_FROM) {
        others.calls += row.calls;
        others.ms += row.ms;
        continue;
      }
      double reached = each == 0 ? 1 : rates.floorMs(row.work) / each;
      boolean slow = share > COUNTS_FROM && reached < SLOW_BELOW;
      anySlow |= slow;
      long macs = row.work.binaryMacs + row.work.realMacs;
      System.out.printf(
          Locale.ROOT,
          "%-58s %5d %9.3f %5.1f%% %9.2f %8.1f %6.1f%% %9s %6.1f%%%s%n",
          row.work.what,
          row.calls / steps,
          each,
          100 * share,
          row.work.bytes / 1e6,
          row.work.bytes / (1e6 * each),
          100 * row.work.bytes / (rates.copy * each / 1e3),
          macs == 0 ? "" : String.format(Locale.ROOT, "%.2f", macs / (1e9 * each)),
          100 * reached,
          slow ? "  SLOW" : "");
    }
    System.out.printf(
        Locale.ROOT,
        "%-58s %5d %9.3f  together%n",
        others.work.what,
        others.calls / steps,
        others.ms / steps);
    System.out.printf(
        Locale.ROOT, "%-58s %5d %9.3f  together%n", "all", calls.size() / steps, total / steps);
    return anySlow;
  }
}
