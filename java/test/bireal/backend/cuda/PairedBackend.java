package bireal.backend.cuda;

import bireal.backend.Arena;
import bireal.backend.Backend;
import bireal.backend.BatchNormBackward;
import bireal.backend.BatchNormStatistics;
import bireal.backend.GradMode;
import bireal.backend.GradientCast;
import bireal.backend.Plan;
import bireal.backend.RPRelu;
import bireal.backend.StepState;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightCast;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Pattern;

/**
 * A CPU backend that makes a CUDA backend do each op as well: it gets what the CPU has stored, and
 * its results are compared with the CPU's. So a step of a network is proved op by op, and no
 * difference grows into the next one. Bits and integers must be equal, floats within the bound of
 * the op.
 */
public final class PairedBackend {
  private static final Set<String> QUESTIONS =
      Set.of(
          "description",
          "availableBytes",
          "evaluationImages",
          "lanes",
          "passes",
          "stores",
          "equals",
          "hashCode",
          "toString",
          "close",
          "allocate",
          "write",
          "upload",
          "awaitUploads",
          "releaseUploads",
          "replay",
          "forget",
          "read",
          "zero");

  /**
   * Largest difference over the largest value of the tensor. Not named: 0, the op is elementwise.
   *
   * <p>Products and real convolutions sum at most 576 terms in float32 in this test: (576 + 4)
   * 2^-24 = 3.5e-5 of the sum of absolute values, which here is at most 3 times the largest result.
   * What is computed in double in another order and rounded once or twice may differ by 2^-23 of
   * its value, more where terms of BN's backward pass cancel.
   */
  private static final Map<String, Double> BOUNDS =
      Map.ofEntries(
          Map.entry("conv2dFwd", 1e-4),
          Map.entry("conv2dBwdInput", 1e-4),
          Map.entry("conv2dBwdWeight", 1e-4),
          Map.entry("linearFwd", 1e-4),
          Map.entry("linearBwdInput", 1e-4),
          Map.entry("linearBwdWeight", 1e-4),
          Map.entry("binaryConvBwdInput", 1e-4),
          Map.entry("binaryConvBwdWeight", 1e-4),
          Map.entry("approxSignBwd", 0x1p-22),
          Map.entry("batchNormStatistics", 0x1p-22),
          Map.entry("batchNormRPReluBwd", 0x1p-22),
          Map.entry("batchNormBwdCoefficients", 0x1p-20),
          Map.entry("softmaxXent", 0x1p-22));

  private static final double F64_BOUND = 1e-11;

  /**
   * The same where the GPU stores activations and their gradients in half precision. Both get the
   * same rounded values; a result that is stored is off by 2^-11 of itself, and so is each operand
   * that a library gets rounded (weights, alpha times a sign) and each weight gradient that cuDNN
   * rounds before it is widened. Measured: at most 6.7e-4 = 2^-10.6 of the largest value. Sums over
   * rows add the products of four rows in float32 (2^-21 of the sum of absolute values), and those
   * of approx_sign are of the rounded dx.
   */
  private static final double F16_BOUND = 0x1p-10;

  private static final Pattern ROUNDED =
      Pattern.compile(
          "images and logits|activations.*|gradients of (activations|the narrow|convolution|downsampled).*");

  private static final Set<String> WIDENED = Set.of("conv2dBwdWeight", "binaryConvBwdWeight");

  private static final Map<String, Double> MIXED_F64_BOUNDS =
      Map.of(
          "approxSignBwd",
          F16_BOUND,
          "batchNormSums",
          1e-5,
          "batchNormMaxPoolFwd",
          1e-5,
          "batchNormBwdSums",
          1e-5);

  private final Backend cpu;
  private final Backend cuda;
  private final boolean mixed;
  private final IdentityHashMap<Buffer, Buffer> mirrors = new IdentityHashMap<>();
  private final IdentityHashMap<Tensor, Tensor> mirrored = new IdentityHashMap<>();
  private final IdentityHashMap<Object, Pair> pairs = new IdentityHashMap<>();
  private final IdentityHashMap<Tensor, Tensor> bitsOfPrepared = new IdentityHashMap<>();
  private final Map<String, IdentityHashMap<Tensor, Tensor>> scratch = new TreeMap<>();
  private final Map<String, Double> worst = new TreeMap<>();
  private final Map<String, Integer> calls = new TreeMap<>();

  /**
   * With {@code mixed} the GPU stores activations and their gradients in half precision, and the
   * CPU's are rounded to it before each op.
   */
  public PairedBackend(Backend cpu, Backend cuda, boolean mixed) {
    this.cpu = cpu;
    this.cuda = cuda;
    this.mixed = mixed;
  }

  /** The CPU backend, paired. Throws AssertionError at the first op that differs. */
  public Backend backend() {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, args) ->
                method.getName().equals("evaluation")
                    ? proxy // lanes are the CPU's alone
                    : call(method, args == null ? new Object[0] : args));
  }

  /** Largest difference of each op's floats, over the largest value of its tensor. */
  public Map<String, Double> worst() {
    return worst;
  }

  /** How often each op was compared. */
  public Map<String, Integer> calls() {
    return calls;
  }

  private Object call(Method method, Object[] args) throws Exception {
    String op = method.getName();
    if (op.equals("allocate")) {
      Buffer own = (Buffer) invoke(method, cpu, args);
      mirrors.put(own, (Buffer) invoke(method, cuda, args));
      return own;
    }
    if ((op.endsWith("Bytes") && !QUESTIONS.contains(op)) || op.equals("batchNormSlices")) {
      return Math.max((long) invoke(method, cpu, args), (long) invoke(method, cuda, stored(args)));
    }
    if (op.equals("planUpdate")) {
      UpdateSpec spec = (UpdateSpec) args[0];
      return pair(cpu.planUpdate(spec(spec, 0)), null, spec);
    }
    if (op.startsWith("plan")) {
      return pair(invoke(method, cpu, args), invoke(method, cuda, stored(args)), null);
    }
    Object[] own = args.clone();
    for (int i = 0; i < args.length; i++) {
      Pair pair = pairs.get(args[i]);
      own[i] = pair == null ? args[i] : pair.own;
    }
    if (QUESTIONS.contains(op)) {
      return invoke(method, cpu, own);
    }
    if (op.equals("binaryConvPrepare")) { // the CPU's own; CUDA reads the bits
      bitsOfPrepared.put((Tensor) args[1], (Tensor) args[2]);
      return invoke(method, cpu, own);
    }
    if (op.equals("binaryConvFwd")) {
      args = args.clone();
      args[5] = bitsOfPrepared.get((Tensor) args[5]);
    }
    if (op.equals("binaryConvBatchNormFwd")) {
      args = args.clone();
      args[6] = bitsOfPrepared.get((Tensor) args[6]);
    }
    List<Tensor> tensors = new ArrayList<>();
    Object[] other = new Object[args.length];
    for (int i = 0; i < args.length; i++) {
      other[i] = mirror(args[i], tensors);
    }
    for (Tensor tensor : tensors) {
      if (!isWorkspace(args, tensor)) {
        upload(tensor);
      }
    }
    Tensor rounded = mixed ? takeOperands(op, args, other) : null;
    if (op.equals("finiteNorm")) { // which may leave in the gradients what it likes
      upload(((Update) args[0]).spec().gradients());
    }
    invoke(method, cpu, own);
    invoke(method, cuda, other);
    if (rounded != null) {
      cuda.castGradients(
          List.of(new GradientCast(mirror((Tensor) args[2]), rounded)), (GradMode) args[5]);
    }
    for (Tensor tensor : tensors) {
      if (!isWorkspace(args, tensor)) {
        compare(op, tensor);
      }
    }
    calls.merge(op, 1, Integer::sum);
    return null;
  }

  /**
   * Puts what a library takes into {@code other}: copies of weights of the type that the GPU's plan
   * wants; and returns where the pass writes a weight gradient of such a type, or null.
   */
  private Tensor takeOperands(String op, Object[] args, Object[] other) {
    if (!(other[0] instanceof Plan plan)) {
      return null;
    }
    switch (op) {
      case "conv2dFwd", "conv2dBwdInput", "linearBwdInput" -> other[4] = operand(plan, args[4]);
      case "linearFwd" -> {
        other[4] = operand(plan, args[4]);
        other[5] = operand(plan, args[5]);
      }
      case "binaryConvBwdInput" -> {
        Tensor bits = (Tensor) args[5];
        Tensor signs = scratch("signs", bits, DType.F32);
        cuda.signUnpackFwd((int) bits.shape().dim(0), signs, mirror(bits));
        Tensor operand = scratch("operand", bits, plan.weightType());
        cuda.castWeights(List.of(new WeightCast(operand, signs, mirror((Tensor) args[4]))));
        other[5] = operand;
      }
      case "conv2dBwdWeight", "binaryConvBwdWeight" -> {
        if (plan.gradientType() != DType.F32) {
          Tensor rounded = scratch("gradient", (Tensor) args[2], plan.gradientType());
          other[2] = rounded;
          other[5] = GradMode.OVERWRITE;
          return rounded;
        }
      }
      default -> {}
    }
    return null;
  }

  private Tensor operand(Plan plan, Object w) {
    Tensor operand = scratch("operand", (Tensor) w, plan.weightType());
    cuda.castWeights(List.of(new WeightCast(operand, mirror((Tensor) w), null)));
    return operand;
  }

  /** Memory of the GPU of the shape of {@code like}, the same for the same tensor and name. */
  private Tensor scratch(String name, Tensor like, DType type) {
    return scratch
        .computeIfAbsent(name, key -> new IdentityHashMap<>())
        .computeIfAbsent(
            like,
            key ->
                new Tensor(
                    cuda.allocate(type.bytes(like.shape()), name + " of " + like),
                    0,
                    like.shape(),
                    type));
  }

  /** The same plan with the type that the GPU stores. */
  private Object[] stored(Object[] args) {
    Object[] stored = args.clone();
    for (int i = 0; i < stored.length; i++) {
      stored[i] = mixed && stored[i] == DType.F32 ? DType.F16 : stored[i];
    }
    return stored;
  }

  private static Object invoke(Method method, Object target, Object... args) throws Exception {
    try {
      return method.invoke(target, args);
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof Exception cause) {
        throw cause;
      }
      throw e;
    }
  }

  /** The last tensor of a method that has a workspace: scratch, whatever it holds. */
  private static boolean isWorkspace(Object[] args, Tensor tensor) {
    return tensor.dtype() == DType.U8
        && tensor == args[args.length - 1]
        && tensor.shape().rank() == 1;
  }

  // Plans and updates: one object stands for both.

  private static final class Pair {
    final Object own;
    Object other;

    Pair(Object own, Object other) {
      this.own = own;
      this.other = other;
    }
  }

  /** {@code specOrNull}: of an update, whose other half is made once its tensors are allocated. */
  private Object pair(Object own, Object other, UpdateSpec specOrNull) {
    Class<?> type =
        specOrNull != null
            ? Update.class
            : own instanceof Plan.BinaryConv
                ? Plan.BinaryConv.class
                : own instanceof Plan.Conv2d ? Plan.Conv2d.class : Plan.Linear.class;
    Pair pair = new Pair(own, other);
    Object paired =
        Proxy.newProxyInstance(
            type.getClassLoader(),
            new Class<?>[] {type},
            (proxy, method, args) ->
                switch (method.getName()) {
                  case "close" -> {
                    invoke(method, pair.own);
                    yield pair.other == null ? null : invoke(method, pair.other);
                  }
                  case "spec" -> specOrNull == null ? invoke(method, pair.own) : specOrNull;
                  // Each backend looks at its own need; the tensor serves both.
                  case "workspaceBytes" ->
                      Math.max((long) invoke(method, pair.own), (long) invoke(method, pair.other));
                  case "fusesBatchNorm", "fusesMaxPool" ->
                      (boolean) invoke(method, pair.own, args)
                          && (boolean) invoke(method, pair.other, args);
                  case "hashCode" -> System.identityHashCode(proxy);
                  case "equals" -> proxy == args[0];
                  default -> invoke(method, pair.own);
                });
    pairs.put(paired, pair);
    return paired;
  }

  /** For the CPU ({@code half} 0), or over the mirrored tensors for CUDA. */
  private UpdateSpec spec(UpdateSpec spec, int half) {
    List<UpdateSpec.BinaryParameter> binary = new ArrayList<>();
    for (UpdateSpec.BinaryParameter b : spec.binary()) {
      binary.add(
          half == 0
              ? new UpdateSpec.BinaryParameter(
                  b.w(),
                  b.gradient(),
                  b.bits(),
                  b.alpha(),
                  b.rule(),
                  (Plan.BinaryConv) pairs.get(b.plan()).own,
                  b.prepared())
              : new UpdateSpec.BinaryParameter(
                  mirror(b.w()),
                  mirror(b.gradient()),
                  mirror(b.bits()),
                  mirror(b.alpha()),
                  b.rule(),
                  null,
                  null));
    }
    if (half == 0) {
      return new UpdateSpec(
          spec.parameters(),
          spec.gradients(),
          spec.trained(),
          binary,
          spec.norms(),
          spec.momentum());
    }
    List<UpdateSpec.RunningStatistics> norms = new ArrayList<>();
    for (UpdateSpec.RunningStatistics n : spec.norms()) {
      norms.add(
          new UpdateSpec.RunningStatistics(
              mirror(n.mean()), mirror(n.variance()), mirror(n.sums())));
    }
    return new UpdateSpec(
        mirror(spec.parameters()),
        mirror(spec.gradients()),
        spec.trained(),
        binary,
        norms,
        spec.momentum());
  }

  // Tensors.

  private Object mirror(Object argument, List<Tensor> seen) {
    if (argument instanceof Tensor tensor) {
      seen.add(tensor);
      return mirror(tensor);
    }
    if (argument instanceof BatchNormStatistics s) {
      return new BatchNormStatistics(
          (Tensor) mirror(s.stats(), seen),
          (Tensor) mirror(s.affine(), seen),
          (Tensor) mirror(s.runningSums(), seen),
          (Tensor) mirror(s.sums(), seen),
          (Tensor) mirror(s.alphaOrNull(), seen),
          (Tensor) mirror(s.gamma(), seen),
          (Tensor) mirror(s.beta(), seen),
          s.eps());
    }
    if (argument instanceof BatchNormBackward b) {
      return new BatchNormBackward(
          (Tensor) mirror(b.coefficients(), seen),
          (Tensor) mirror(b.dgamma(), seen),
          (Tensor) mirror(b.dbeta(), seen),
          (Tensor) mirror(b.sums(), seen),
          (Tensor) mirror(b.stats(), seen),
          (Tensor) mirror(b.alphaOrNull(), seen),
          (Tensor) mirror(b.gamma(), seen));
    }
    if (argument instanceof RPRelu r) {
      return new RPRelu(
          (Tensor) mirror(r.bias1(), seen),
          (Tensor) mirror(r.slope(), seen),
          (Tensor) mirror(r.bias2(), seen));
    }
    if (argument instanceof StepState s) {
      return new StepState(
          (Tensor) mirror(s.state(), seen), (Tensor) mirror(s.metrics(), seen), null);
    }
    if (argument instanceof Update update) {
      Pair both = pairs.get(update);
      if (both.other == null) {
        both.other = cuda.planUpdate(spec(update.spec(), 1));
      }
      seen.add(update.spec().parameters());
      for (UpdateSpec.BinaryParameter b : update.spec().binary()) {
        seen.addAll(List.of(b.bits(), b.alpha()));
      }
      for (UpdateSpec.RunningStatistics n : update.spec().norms()) {
        seen.addAll(List.of(n.mean(), n.variance(), n.sums()));
      }
      return both.other;
    }
    Pair pair = pairs.get(argument);
    return pair == null ? argument : pair.other;
  }

  /** The same for the same tensor, as the backends may compare them. */
  private Tensor mirror(Tensor tensor) {
    return mirrored.computeIfAbsent(
        tensor,
        key -> {
          if (rounded(tensor)) {
            long bytes = DType.F16.bytes(tensor.shape());
            return new Tensor(
                cuda.allocate(bytes, "half of " + tensor), 0, tensor.shape(), DType.F16);
          }
          Buffer own = tensor.buffer() instanceof Arena arena ? arena.slab() : tensor.buffer();
          return new Tensor(mirrors.get(own), tensor.offsetBytes(), tensor.shape(), tensor.dtype());
        });
  }

  private static ByteBuffer bytes(Backend backend, Tensor tensor) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(tensor.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    backend.read(bytes, tensor);
    return bytes;
  }

  /** Activations and their gradients, by the planner's names of what they lie in. */
  private boolean rounded(Tensor tensor) {
    return mixed
        && tensor.dtype() == DType.F32
        && tensor.buffer() instanceof Arena arena
        && ROUNDED.matcher(arena.what()).matches();
  }

  private void upload(Tensor tensor) {
    ByteBuffer bytes = bytes(cpu, tensor);
    if (!rounded(tensor)) {
      cuda.write(mirror(tensor), bytes);
      return;
    }
    float[] values = new float[bytes.remaining() / 4];
    short[] halves = new short[values.length];
    bytes.asFloatBuffer().get(values);
    for (int i = 0; i < values.length; i++) {
      halves[i] = Half.of(values[i]);
      values[i] = Half.value(halves[i]);
    }
    ByteBuffer stored = ByteBuffer.allocate(2 * halves.length).order(ByteOrder.LITTLE_ENDIAN);
    stored.asShortBuffer().put(halves);
    cuda.write(mirror(tensor), stored);
    bytes.asFloatBuffer().put(values);
    cpu.write(tensor, bytes);
  }

  private void compare(String op, Tensor tensor) {
    ByteBuffer expected = bytes(cpu, tensor);
    ByteBuffer got = bytes(cuda, mirror(tensor));
    boolean wide = tensor.dtype() == DType.F64;
    if (!wide && tensor.dtype() != DType.F32) {
      if (!expected.equals(got)) {
        throw new AssertionError(op + ": " + tensor + " differs at byte " + expected.mismatch(got));
      }
      return;
    }
    double[] want = values(expected, tensor.dtype());
    double[] have = values(got, mirror(tensor).dtype());
    if (wide && tensor.shape().rank() == 3) { // sums in slices: who needs them adds them up
      want = summed(want, tensor.shape());
      have = summed(have, tensor.shape());
    }
    double largest = 0;
    for (double value : want) {
      largest = Math.max(largest, Math.abs(value));
    }
    double bound = bound(op, wide, rounded(tensor));
    double worstHere = 0;
    for (int i = 0; i < want.length; i++) {
      double difference = Math.abs(have[i] - want[i]);
      if (Double.isNaN(want[i]) && Double.isNaN(have[i])) {
        continue;
      }
      if (!(difference <= bound * largest)) {
        throw new AssertionError(
            op
                + ": element "
                + i
                + " of "
                + tensor
                + " is "
                + have[i]
                + " on "
                + cuda.description()
                + ", "
                + want[i]
                + " on the CPU; allowed is "
                + bound * largest);
      }
      worstHere = Math.max(worstHere, difference);
    }
    if (largest > 0) {
      worst.merge(op, worstHere / largest, Math::max);
    }
  }

  private double bound(String op, boolean wide, boolean rounded) {
    if (wide) {
      return mixed ? MIXED_F64_BOUNDS.getOrDefault(op, F64_BOUND) : F64_BOUND;
    }
    double bound = BOUNDS.getOrDefault(op, 0.0);
    return rounded || (mixed && WIDENED.contains(op)) ? Math.max(bound, F16_BOUND) : bound;
  }

  private static double[] values(ByteBuffer bytes, DType type) {
    double[] values = new double[(int) (bytes.remaining() / type.bytes(Shape.of(1)))];
    switch (type) {
      case F64 -> bytes.asDoubleBuffer().get(values);
      case F32 -> {
        float[] floats = new float[values.length];
        bytes.asFloatBuffer().get(floats);
        for (int i = 0; i < floats.length; i++) {
          values[i] = floats[i];
        }
      }
      case F16 -> {
        short[] halves = new short[values.length];
        bytes.asShortBuffer().get(halves);
        for (int i = 0; i < halves.length; i++) {
          values[i] = Half.value(halves[i]);
        }
      }
      default -> throw new IllegalArgumentException(type + " is compared by its bytes");
    }
    return values;
  }

  private static double[] summed(double[] values, Shape shape) {
    int size = (int) shape.innerCount();
    double[] sums = new double[size];
    for (int i = 0; i < values.length; i++) {
      sums[i % size] += values[i];
    }
    return sums;
  }
}
