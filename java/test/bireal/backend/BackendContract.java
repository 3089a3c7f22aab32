package bireal.backend;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.cpu.CpuBackend;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Scope;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/**
 * What every backend must do, through {@link Backend} alone: each subclass opens one. The results
 * of the ops are compared with those of the reference backend on the same inputs; the native tests
 * compare each op with its formula. Bits, integers and elementwise floats must be equal; sums of
 * floats within the bound beside them.
 */
abstract class BackendContract {
  private final Scope scope = new Scope();
  private Backend backend;
  private Backend reference;

  abstract Backend open();

  /** Which arithmetics of the binary convolutions' backward passes there are. */
  List<Gradient> gradients() {
    return List.of(Gradient.values());
  }

  /** Whether sums of doubles are added in the order of the reference. */
  boolean addsInOrder() {
    return true;
  }

  @BeforeEach
  void openBoth() {
    backend = scope.add(open());
    reference = scope.add(CpuBackend.reference());
  }

  @AfterEach
  void close() {
    scope.close();
    closed();
  }

  /** Everything that a test has opened is closed. */
  void closed() {}

  /** Tensors of one backend by name, filled alike on both. */
  private static final class Desk {
    final Backend backend;
    final Map<String, Tensor> tensors = new LinkedHashMap<>();

    Desk(Backend backend) {
      this.backend = backend;
    }

    Tensor make(String name, DType dtype, long... dims) {
      Shape shape = Shape.of(dims);
      Tensor tensor = new Tensor(backend.allocate(dtype.bytes(shape), name), 0, shape, dtype);
      tensors.put(name, tensor);
      if (dtype == DType.F32 && !name.startsWith("out")) {
        float[] values = new float[(int) shape.count()];
        long state = Rng.state(1, name);
        for (int i = 0; i < values.length; i++) {
          values[i] = (float) (3 * Rng.uniform(state, i) - 1.5);
        }
        Tensors.write(backend, tensor, values);
      }
      return tensor;
    }

    Tensor scratch(long bytes) {
      return new Tensor(
          backend.allocate(Math.max(64, bytes), "scratch"),
          0,
          Shape.of(Math.max(64, bytes)),
          DType.U8);
    }
  }

  private interface Work {
    void run(Desk desk);
  }

  /**
   * Runs on both; outputs are the tensors called "out...", with "~" in the name where a relative
   * bound holds, "#" where that is so only if doubles are added in another order than the
   * reference's.
   */
  private void compare(Work work) {
    Desk mine = new Desk(backend);
    Desk law = new Desk(reference);
    work.run(mine);
    work.run(law);
    int compared = 0;
    for (Map.Entry<String, Tensor> entry : mine.tensors.entrySet()) {
      String name = entry.getKey();
      if (!name.startsWith("out")) {
        continue;
      }
      compared++;
      if (name.contains("#") && !addsInOrder()) {
        // At most 200 terms in double: 200 * 2^-53 of the sum of absolute values, here about 10
        // times the largest result; F32 results are rounded from that, once or twice.
        boolean f64 = entry.getValue().dtype() == DType.F64;
        double[] got = values(backend, entry.getValue());
        double[] expected = values(reference, law.tensors.get(name));
        double largest = 0;
        for (double value : expected) {
          largest = Math.max(largest, Math.abs(value));
        }
        assertTrue(largest > 0, name + " is all zero");
        assertArrayEquals(expected, got, (f64 ? 1e-12 : 0x1p-22) * largest, name);
      } else if (name.contains("~")) {
        float[] got = Tensors.floats(backend, entry.getValue());
        float[] expected = Tensors.floats(reference, law.tensors.get(name));
        double largest = 0;
        for (float value : expected) {
          largest = Math.max(largest, Math.abs(value));
        }
        assertTrue(largest > 0, name + " is all zero");
        // Sums of at most 400 products of order 1 in float32: (400 + 4) 2^-24 = 2.4e-5 of the sum
        // of absolute values.
        assertArrayEquals(expected, got, (float) (1e-4 * largest), name);
      } else {
        assertEquals(
            Tensors.read(reference, law.tensors.get(name)),
            Tensors.read(backend, entry.getValue()),
            name);
      }
    }
    assertTrue(compared > 0, "nothing compared");
  }

  private static double[] values(Backend backend, Tensor tensor) {
    if (tensor.dtype() == DType.F64) {
      return Tensors.doubles(backend, tensor);
    }
    float[] floats = Tensors.floats(backend, tensor);
    double[] values = new double[floats.length];
    for (int i = 0; i < values.length; i++) {
      values[i] = floats[i];
    }
    return values;
  }

  @Test
  void memoryIsZeroAtFirstAndKeepsWhatIsWritten() {
    try (Buffer buffer = backend.allocate(1000, "test")) {
      Tensor tensor = new Tensor(buffer, 0, Shape.of(1000), DType.U8);
      assertEquals(0, buffer.address() % 64);
      assertEquals(ByteBuffer.allocate(1000), Tensors.read(backend, tensor));
      ByteBuffer direct = ByteBuffer.allocateDirect(1000).order(ByteOrder.LITTLE_ENDIAN);
      for (int i = 0; i < 1000; i++) {
        direct.put((byte) i);
      }
      backend.write(tensor, direct.flip());
      ByteBuffer back = ByteBuffer.allocateDirect(1000);
      backend.read(back, tensor);
      assertEquals(direct, back);
      Tensor part = new Tensor(buffer, 64, Shape.of(10), DType.U8);
      assertEquals(64, Tensors.read(backend, part).get(0));
      assertThrows(IllegalArgumentException.class, () -> backend.write(part, direct));
      backend.zero(part);
      assertEquals(0, Tensors.read(backend, tensor).get(64));
      assertEquals(74, Tensors.read(backend, tensor).get(74));
    }
  }

  @Test
  void binaryConvolutionAndItsGradientsFollowTheReference() {
    for (int[] c : new int[][] {{1, 1, 1}, {31, 17, 2}, {33, 40, 1}, {64, 16, 2}}) {
      for (Gradient gradient : gradients()) {
        compare(desk -> binaryConvolution(desk, c[0], c[1], c[2], gradient));
      }
    }
  }

  private static void binaryConvolution(Desk desk, int C, int K, int stride, Gradient gradient) {
    Conv2dSpec spec = new Conv2dSpec(5, 6, C, K, 3, 3, stride, 1);
    Backend b = desk.backend;
    int n = 2; // of a plan for 3
    // Fixed point adds up integers: the same bits everywhere.
    String out = gradient == Gradient.FIXED16 ? "out " : "out~";
    try (Plan.BinaryConv plan = b.planBinaryConv(spec, 3, DType.F32, gradient)) {
      Tensor x = desk.make("x", DType.F32, 3, 5, 6, C);
      Tensor bits = desk.make("out bits", DType.BITS, 3, 5, 6, C);
      Tensor w = desk.make("w", DType.F32, K, 3, 3, C);
      Tensor wBits = desk.make("out w bits", DType.BITS, K, 3, 3, C);
      Tensor alpha = desk.make("out alpha", DType.F32, K);
      Tensor v = desk.make("out v", plan.valueType(), 3, spec.P(), spec.Q(), K);
      Tensor sums = desk.make("out sums", DType.I64, 1, 2, K);
      Tensor dz = desk.make("dz", DType.F32, 3, spec.P(), spec.Q(), K);
      Tensor dw = desk.make(out + "dw", DType.F32, K, 3, 3, C);
      Tensor dx = desk.make(out + "dx", DType.F32, 3, 5, 6, C);
      Tensor prepared = plan.preparedBytes() == 0 ? wBits : desk.scratch(plan.preparedBytes());
      Tensor workspace = desk.scratch(plan.workspaceBytes());
      b.signPackFwd(n, bits, x, null);
      b.weightBinarizeFwd(wBits, alpha, w);
      b.binaryConvPrepare(plan, prepared, wBits);
      b.binaryConvFwd(plan, n, v, sums, bits, prepared, workspace);
      convolveAndNormalise(b, desk, plan, n, bits, prepared, alpha, workspace);
      b.binaryConvBwdInput(plan, n, dx, dz, alpha, wBits, workspace);
      b.binaryConvBwdWeight(plan, n, dw, bits, dz, GradMode.OVERWRITE, workspace);
      b.binaryConvBwdWeight(plan, n, dw, bits, dz, GradMode.ACCUMULATE, workspace);
      assertEquals(0, plan.fallbacks());
    }
    try (Plan.BinaryConv plan = b.planBinaryConv(spec, 3, DType.F32, null)) {
      Tensor workspace = desk.scratch(plan.workspaceBytes());
      assertThrows(
          IllegalArgumentException.class,
          () ->
              b.binaryConvBwdInput(
                  plan,
                  n,
                  desk.make("no dx", DType.F32, 3, 5, 6, C),
                  desk.make("no dz", DType.F32, 3, spec.P(), spec.Q(), K),
                  desk.make("no alpha", DType.F32, K),
                  desk.make("no w", DType.BITS, K, 3, 3, C),
                  workspace),
          "a plan without backward passes");
    }
  }

  /** In every combination that a network has; v is written where the plan wants it. */
  private static void convolveAndNormalise(
      Backend b,
      Desk desk,
      Plan.BinaryConv plan,
      int n,
      Tensor bits,
      Tensor prepared,
      Tensor alpha,
      Tensor workspace) {
    int K = plan.spec().K();
    int P = plan.spec().P();
    int Q = plan.spec().Q();
    Tensor affine = desk.make("norm affine", DType.F32, 2, K);
    Tensor gamma = desk.make("norm gamma", DType.F32, K);
    Tensor beta = desk.make("norm beta", DType.F32, K);
    Tensor shortcut = desk.make("norm shortcut", DType.F32, 3, P, Q, K);
    RPRelu rprelu = new RPRelu(beta, gamma, beta);
    Tensor made = desk.make("out#norm affine", DType.F32, 2, K);
    BatchNormStatistics statistics =
        new BatchNormStatistics(
            desk.make("out#norm stats", DType.F64, 3, K),
            made,
            desk.make("out#norm running", DType.F64, 2, K),
            desk.make("out norm sums", DType.I64, 1, 2, K),
            alpha,
            gamma,
            beta,
            1e-5);
    b.binaryConvBatchNormFwd(
        plan,
        n,
        desk.make("out trained", DType.F32, 3, P, Q, K),
        desk.make("out trained bits", DType.BITS, 3, P, Q, K),
        desk.make("out trained v", plan.valueType(), 3, P, Q, K),
        bits,
        prepared,
        made,
        statistics,
        shortcut,
        affine,
        null,
        beta,
        workspace);
    b.binaryConvBatchNormFwd(
        plan,
        n,
        desk.make("out evaluated", DType.F32, 3, P, Q, K),
        null,
        plan.fusesBatchNorm() ? null : desk.make("own v", plan.valueType(), 3, P, Q, K),
        bits,
        prepared,
        affine,
        null,
        shortcut,
        null,
        rprelu,
        null,
        workspace);
    assertThrows(
        IllegalArgumentException.class,
        () ->
            b.binaryConvBatchNormFwd(
                plan,
                n,
                desk.make("no y", DType.F32, 3, P, Q, K + 1),
                null,
                desk.make("no v", plan.valueType(), 3, P, Q, K),
                bits,
                prepared,
                affine,
                null,
                null,
                null,
                null,
                null,
                workspace),
        "y of other channels");
    assertThrows(
        IllegalArgumentException.class,
        () ->
            b.binaryConvBatchNormFwd(
                plan,
                n,
                desk.make("no y either", DType.F32, 3, P, Q, K),
                null,
                null,
                bits,
                prepared,
                made,
                statistics,
                null,
                null,
                null,
                null,
                workspace),
        "statistics without v");
  }

  @Test
  void weightAndActivationGradientsFollowTheReference() {
    for (WeightGradient rule : WeightGradient.values()) {
      for (ActivationGradient kind : ActivationGradient.values()) {
        compare(
            desk -> {
              Backend b = desk.backend;
              Tensor w = desk.make("w", DType.F32, 5, 3, 3, 33);
              Tensor bits = desk.make("out bits", DType.BITS, 5, 3, 3, 33);
              Tensor alpha = desk.make("out alpha", DType.F32, 5);
              b.weightBinarizeFwd(bits, alpha, w);
              Tensor g = desk.make("g", DType.F32, 5, 3, 3, 33);
              Tensor out = desk.make("out g", DType.F32, 5, 3, 3, 33);
              b.copy(out, g);
              b.weightGradient(out, w, alpha, rule);
              Tensor x = desk.make("x", DType.F32, 2, 3, 1, 33);
              Tensor db = desk.make("db", DType.F32, 2, 3, 1, 33);
              Tensor threshold = desk.make("threshold", DType.F32, 33);
              Tensor shortcut = desk.make("shortcut", DType.F32, 2, 3, 1, 33);
              Tensor workspace = desk.scratch(b.approxSignWorkspaceBytes(6, 33));
              Tensor dx = desk.make("out dx", DType.F32, 2, 3, 1, 33);
              Tensor learned = desk.make("out#dthreshold", DType.F32, 33);
              Tensor v = desk.make("v", DType.F32, 2, 3, 1, 33);
              Tensor sums = desk.make("out#sums", DType.F64, 1, 2, 33);
              b.approxSignBwd(
                  2,
                  dx,
                  null,
                  sums,
                  db,
                  x,
                  threshold,
                  shortcut,
                  v,
                  desk.make("out#second sums", DType.F64, 1, 2, 33),
                  desk.make("second v", DType.F32, 2, 3, 1, 33),
                  kind,
                  GradMode.OVERWRITE,
                  workspace);
              Tensor dx2 = desk.make("out dx learned", DType.F32, 2, 3, 1, 33);
              for (GradMode mode : GradMode.values()) {
                b.approxSignBwd(
                    2, dx2, learned, null, db, x, threshold, shortcut, null, null, null, kind, mode,
                    workspace);
              }
              Tensor plain = desk.make("out dx plain", DType.F32, 2, 3, 1, 33);
              b.approxSignBwd(
                  1,
                  plain,
                  null,
                  null,
                  db,
                  x,
                  null,
                  null,
                  null,
                  null,
                  null,
                  kind,
                  GradMode.OVERWRITE,
                  workspace);
              assertThrows(
                  IllegalArgumentException.class,
                  () ->
                      b.approxSignBwd(
                          1,
                          plain,
                          learned,
                          null,
                          db,
                          x,
                          null,
                          null,
                          null,
                          null,
                          null,
                          kind,
                          GradMode.OVERWRITE,
                          workspace),
                  "gradient of no threshold");
              b.approxSignBwd(
                  2,
                  desk.make("out dx pooled", DType.F32, 2, 4, 6, 33),
                  null,
                  null,
                  desk.make("db pooled", DType.F32, 2, 4, 6, 33),
                  desk.make("x pooled", DType.F32, 2, 4, 6, 33),
                  threshold,
                  desk.make("pooled", DType.F32, 2, 2, 3, 33),
                  null,
                  null,
                  null,
                  kind,
                  GradMode.OVERWRITE,
                  workspace);
              assertThrows(
                  IllegalArgumentException.class,
                  () ->
                      b.approxSignBwd(
                          1,
                          plain,
                          null,
                          null,
                          db,
                          x,
                          null,
                          desk.make("half", DType.F32, 2, 1, 1, 33),
                          null,
                          null,
                          null,
                          kind,
                          GradMode.OVERWRITE,
                          workspace),
                  "3x1 pooled to 1x1");
              Tensor packed = desk.make("out packed", DType.BITS, 2, 3, 1, 33);
              b.signPackFwd(2, packed, x, threshold);
              b.signUnpackFwd(2, desk.make("out unpacked", DType.F32, 2, 3, 1, 33), packed);
            });
      }
    }
  }

  @Test
  void batchNormOfRealValuesFollowsTheReference() {
    compare(
        desk -> {
          Backend b = desk.backend;
          int C = 33;
          Tensor v = desk.make("v", DType.F32, 3, 4, 5, C);
          Tensor sums = desk.make("out#sums", DType.F64, b.batchNormSlices(60, C), 2, C);
          Tensor stats = desk.make("out#stats", DType.F64, 3, C);
          Tensor made = desk.make("out#affine", DType.F32, 2, C);
          Tensor affine = desk.make("affine", DType.F32, 2, C);
          Tensor running = desk.make("out#running", DType.F64, 2, C);
          Tensor gamma = desk.make("gamma", DType.F32, C);
          Tensor beta = desk.make("beta", DType.F32, C);
          Tensor workspace = desk.scratch(b.batchNormWorkspaceBytes(60, C));
          b.batchNormSums(3, sums, v, workspace);
          b.batchNormStatistics(
              new BatchNormStatistics(stats, made, running, sums, null, gamma, beta, 1e-5), 60);
          Tensor y = desk.make("out y", DType.F32, 3, 4, 5, C);
          Tensor bits = desk.make("out bits", DType.BITS, 3, 4, 5, C);
          Tensor shortcut = desk.make("shortcut", DType.F32, 3, 4, 5, C);
          b.batchNormApply(3, y, bits, v, affine, null, shortcut, affine, null, beta);
          Tensor dy = desk.make("dy", DType.F32, 3, 4, 5, C);
          RPRelu rprelu =
              new RPRelu(
                  desk.make("bias1", DType.F32, C),
                  desk.make("slope", DType.F32, C),
                  desk.make("bias2", DType.F32, C));
          b.batchNormApply(
              3,
              desk.make("out rprelu", DType.F32, 3, 4, 5, C),
              desk.make("out rprelu bits", DType.BITS, 3, 4, 5, C),
              v,
              affine,
              null,
              shortcut,
              null,
              rprelu,
              beta);
          Tensor rpreluSums =
              desk.make("out#rprelu sums", DType.F64, b.batchNormSlices(60, C), 2, C);
          Tensor drprelu = desk.make("out drprelu", DType.F32, 3, 4, 5, C);
          RPRelu gradients =
              new RPRelu(
                  desk.make("out#dbias1", DType.F32, C),
                  desk.make("out#dslope", DType.F32, C),
                  desk.make("out#dbias2", DType.F32, C));
          for (GradMode mode : GradMode.values()) {
            b.batchNormRPReluBwd(
                3,
                drprelu,
                rpreluSums,
                gradients,
                dy,
                v,
                affine,
                shortcut,
                null,
                rprelu,
                mode,
                workspace);
          }
          Tensor backward =
              desk.make("out#backward sums", DType.F64, b.batchNormSlices(60, C), 2, C);
          Tensor coefficients = desk.make("out#coefficients", DType.F32, 3, C);
          Tensor dgamma = desk.make("out#dgamma", DType.F32, C);
          Tensor dbeta = desk.make("out#dbeta", DType.F32, C);
          b.batchNormBwdSums(3, backward, dy, v, workspace);
          BatchNormBackward norm =
              new BatchNormBackward(coefficients, dgamma, dbeta, backward, stats, null, gamma);
          b.batchNormBwdCoefficients(norm, null, 60, 60, GradMode.OVERWRITE);
          // Beside it that of a binary convolution, which has alpha; both orders.
          for (GradMode mode : GradMode.values()) {
            BatchNormBackward own =
                new BatchNormBackward(
                    desk.make("out#own coefficients " + mode, DType.F32, 3, C),
                    desk.make("out#own dgamma " + mode, DType.F32, C),
                    desk.make("out#own dbeta " + mode, DType.F32, C),
                    rpreluSums,
                    stats,
                    desk.make("alpha", DType.F32, C),
                    beta);
            for (BatchNormBackward[] two : new BatchNormBackward[][] {{own, norm}, {norm, own}}) {
              b.batchNormBwdCoefficients(two[0], two[1], 60, 60, mode);
            }
          }
          BatchNormBackward narrow =
              new BatchNormBackward(
                  coefficients,
                  dgamma,
                  desk.make("narrow dbeta", DType.F32, C - 1),
                  backward,
                  stats,
                  null,
                  gamma);
          for (BatchNormBackward[] two :
              new BatchNormBackward[][] {{narrow, null}, {norm, narrow}}) {
            assertThrows(
                IllegalArgumentException.class,
                () -> b.batchNormBwdCoefficients(two[0], two[1], 60, 60, GradMode.OVERWRITE));
          }
          b.batchNormBwdApply(
              3,
              desk.make("out dz", DType.F32, 3, 4, 5, C),
              dy,
              v,
              desk.make("given coefficients", DType.F32, 3, C),
              null,
              null,
              null);
          b.batchNormBwdApply(
              3,
              desk.make("out dz of both", DType.F32, 3, 4, 5, C),
              dy,
              v,
              desk.make("given coefficients", DType.F32, 3, C),
              desk.make("out shortcut dz", DType.F32, 3, 4, 5, C),
              desk.make("shortcut v", DType.F32, 3, 4, 5, C),
              desk.make("shortcut coefficients", DType.F32, 3, C));
          Tensor variance = desk.make("variance", DType.F32, C);
          b.copy(variance, gamma);
          b.activationFwd(C, variance, variance, ActivationKind.RELU, 0);
          b.batchNormInference(
              desk.make("out inference", DType.F32, 2, C), beta, variance, null, gamma, beta, 1e-5);
        });
  }

  @Test
  void realLayersFollowTheReference() {
    compare(
        desk -> {
          Backend b = desk.backend;
          Conv2dSpec spec = new Conv2dSpec(7, 6, 3, 17, 3, 3, 2, 1);
          try (Plan.Conv2d conv = b.planConv2d(spec, 3, DType.F32);
              Plan.Linear linear = b.planLinear(17, 5, 3, DType.F32)) {
            Tensor x = desk.make("x", DType.F32, 3, 7, 6, 3);
            Tensor w = desk.make("w", DType.F32, 17, 3, 3, 3);
            Tensor y = desk.make("out~y", DType.F32, 3, spec.P(), spec.Q(), 17);
            Tensor dy = desk.make("dy", DType.F32, 3, spec.P(), spec.Q(), 17);
            Tensor workspace =
                desk.scratch(Math.max(conv.workspaceBytes(), linear.workspaceBytes()));
            b.conv2dFwd(conv, 3, y, x, w, workspace);
            b.conv2dBwdInput(conv, 3, desk.make("out~dx", DType.F32, 3, 7, 6, 3), dy, w, workspace);
            b.conv2dBwdWeight(
                conv,
                3,
                desk.make("out~dw", DType.F32, 17, 3, 3, 3),
                x,
                dy,
                GradMode.OVERWRITE,
                workspace);
            Tensor rows = desk.make("rows", DType.F32, 3, 17);
            Tensor fc = desk.make("fc", DType.F32, 5, 17);
            Tensor bias = desk.make("bias", DType.F32, 5);
            Tensor dl = desk.make("dl", DType.F32, 3, 5);
            b.linearFwd(
                linear, 3, desk.make("out~logits", DType.F32, 3, 5), rows, fc, bias, workspace);
            b.linearBwdInput(
                linear, 3, desk.make("out~drows", DType.F32, 3, 17), dl, fc, workspace);
            b.linearBwdWeight(
                linear,
                3,
                desk.make("out~dfc", DType.F32, 5, 17),
                desk.make("out~dbias", DType.F32, 5),
                rows,
                dl,
                GradMode.OVERWRITE,
                workspace);
          }
        });
  }

  @Test
  void theStemInOnePassHasTheBitsOfItsThreeOps() {
    Backend b = backend;
    Desk desk = new Desk(b);
    Conv2dSpec spec = Conv2dSpec.square(Shape.of(19, 22, 3), 33, 7, 2, 3);
    Conv2dSpec pool = new Conv2dSpec(spec.P(), spec.Q(), 33, 33, 3, 3, 2, 1);
    Conv2dSpec other = new Conv2dSpec(spec.P(), spec.Q(), 33, 33, 2, 2, 2, 0);
    try (Plan.Conv2d plan = b.planConv2d(spec, 3, DType.F32)) {
      Tensor x = desk.make("x", DType.F32, 3, 19, 22, 3);
      Tensor w = desk.make("w", DType.F32, 33, 7, 7, 3);
      Tensor gamma = desk.make("gamma", DType.F32, 33);
      Tensor affine = desk.make("affine", DType.F32, 2, 33);
      Tensor threshold = desk.make("threshold", DType.F32, 33);
      Tensor workspace = desk.scratch(plan.workspaceBytes());
      Tensor y = desk.make("y", DType.F32, 3, pool.P(), pool.Q(), 33);
      Tensor bits = desk.make("bits", DType.BITS, 3, pool.P(), pool.Q(), 33);
      List<Conv2dSpec> refused = new ArrayList<>();
      refused.add(other);
      refused.add(new Conv2dSpec(9, 9, 33, 33, 3, 3, 2, 1));
      if (!plan.fusesMaxPool(pool)) {
        refused.add(pool);
      }
      for (Conv2dSpec wrong : refused) {
        assertThrows(
            IllegalArgumentException.class,
            () ->
                b.conv2dMaxPoolBatchNormFwd(
                    plan, wrong, 3, y, bits, x, w, gamma, affine, threshold, workspace));
      }
      assertFalse(plan.fusesMaxPool(other));
      if (refused.contains(pool)) {
        return;
      }
      Tensor v = desk.make("v", DType.F32, 3, spec.P(), spec.Q(), 33);
      Tensor vmax = desk.make("vmax", DType.F32, 3, pool.P(), pool.Q(), 33);
      Tensor index = desk.make("index", DType.U8, 3, pool.P(), pool.Q(), 33);
      b.conv2dFwd(plan, 3, v, x, w, workspace);
      b.batchNormMaxPoolFwd(pool, 3, vmax, index, null, v, gamma, workspace);
      b.batchNormApply(3, y, bits, vmax, affine, null, null, null, null, threshold);
      ByteBuffer expected = Tensors.read(b, y);
      ByteBuffer expectedBits = Tensors.read(b, bits);
      for (Tensor bitsOrNull : new Tensor[] {null, bits}) {
        b.zero(y);
        b.zero(bits);
        b.conv2dMaxPoolBatchNormFwd(
            plan, pool, 3, y, bitsOrNull, x, w, gamma, affine, threshold, workspace);
        assertEquals(expected, Tensors.read(b, y));
      }
      assertEquals(expectedBits, Tensors.read(b, bits));
    }
  }

  @Test
  void poolingAndActivationsFollowTheReference() {
    compare(
        desk -> {
          Backend b = desk.backend;
          Conv2dSpec max = new Conv2dSpec(7, 6, 33, 33, 3, 3, 2, 1);
          Conv2dSpec avg = new Conv2dSpec(7, 6, 33, 33, 2, 2, 2, 0);
          Tensor x = desk.make("x", DType.F32, 2, 7, 6, 33);
          long pooled = 2L * max.P() * max.Q();
          Tensor workspace = desk.scratch(b.batchNormWorkspaceBytes(84, 33));
          Tensor gamma = desk.make("gamma", DType.F32, 33);
          for (int n : new int[] {1, 2}) { // one image: its sums are one slice on every backend
            Tensor vmax = desk.make("out max of " + n, DType.F32, n, max.P(), max.Q(), 33);
            Tensor index = desk.make("out index of " + n, DType.U8, n, max.P(), max.Q(), 33);
            Tensor sums = n == 1 ? desk.make("out#sums of max", DType.F64, 1, 2, 33) : null;
            b.batchNormMaxPoolFwd(max, n, vmax, index, sums, x, gamma, workspace);
          }
          Tensor dy = desk.make("dy", DType.F32, 2, max.P(), max.Q(), 33);
          b.batchNormMaxPoolBwdApply(
              max,
              2,
              desk.make("out dz behind max", DType.F32, 2, 7, 6, 33),
              dy,
              desk.tensors.get("out index of 2"),
              x,
              desk.make("coefficients", DType.F32, 3, 33));
          Tensor stats = desk.make("stats", DType.F64, 3, 33);
          double[] statistics = new double[99]; // mean 0, variance and 1/deviation 1
          Arrays.fill(statistics, 33, 99, 1);
          Tensors.write(b, stats, statistics);
          Tensor fewer =
              desk.make(
                  "fewer sums", DType.F64, b.batchNormSlices(Math.max(84, pooled), 33), 2, 33);
          b.batchNormBwdSums(2, fewer, dy, desk.tensors.get("out max of 2"), workspace);
          for (GradMode mode : GradMode.values()) {
            b.batchNormBwdCoefficients(
                new BatchNormBackward(
                    desk.make("out#coefficients behind max " + mode, DType.F32, 3, 33),
                    desk.make("out#dgamma behind max " + mode, DType.F32, 33),
                    desk.make("out#dbeta behind max " + mode, DType.F32, 33),
                    fewer,
                    stats,
                    null,
                    gamma),
                null,
                pooled,
                84,
                mode);
          }
          b.avgPoolFwd(avg, 2, desk.make("out avg", DType.F32, 2, avg.P(), avg.Q(), 33), x);
          b.avgPoolBwd(
              avg,
              2,
              desk.make("out davg", DType.F32, 2, 7, 6, 33),
              desk.make("da", DType.F32, 2, avg.P(), avg.Q(), 33));
          for (ActivationKind kind : ActivationKind.values()) {
            b.activationFwd(2, desk.make("out " + kind, DType.F32, 2, 7, 6, 33), x, kind, 0.1f);
            b.activationBwd(
                2, desk.make("out d" + kind, DType.F32, 2, 7, 6, 33), x, x, null, kind, 0.1f);
            b.activationBwd(
                2, desk.make("out s" + kind, DType.F32, 2, 7, 6, 33), x, x, x, kind, 0.1f);
          }
        });
  }

  @Test
  void lossNormAndOptimizersFollowTheReference() {
    compare(
        desk -> {
          Backend b = desk.backend;
          StepState step =
              new StepState(
                  desk.make("out#state", DType.F64, 4), desk.make("out#metrics", DType.F64, 4));
          Tensors.write(b, step.state(), new double[] {0.01, 3, 0, 0});
          Tensor labels = desk.make("labels", DType.I32, 3);
          b.write(
              labels,
              ByteBuffer.allocate(12)
                  .order(ByteOrder.LITTLE_ENDIAN)
                  .putInt(2)
                  .putInt(0)
                  .putInt(6)
                  .flip());
          Tensor logits = desk.make("logits", DType.F32, 3, 7);
          Tensor workspace =
              desk.scratch(
                  Math.max(b.softmaxXentWorkspaceBytes(3), b.finiteNormWorkspaceBytes(200)));
          b.softmaxXent(
              3,
              step,
              desk.make("out#dlogits", DType.F32, 3, 7),
              logits,
              labels,
              null,
              0.1,
              1,
              0.25,
              GradMode.OVERWRITE,
              workspace);
          Tensor g = desk.make("g", DType.F32, 200);
          for (WeightGradient rule : WeightGradient.values()) {
            Tensor p = desk.make("out p " + rule, DType.F32, 200);
            Tensor m = desk.make("out m " + rule, DType.F32, 200);
            Tensor ruled = desk.make("g " + rule, DType.F32, 200);
            b.copy(p, desk.make("p", DType.F32, 200));
            b.copy(m, desk.make("m", DType.F32, 200));
            Tensor bits = desk.make("out bits " + rule, DType.BITS, 5, 1, 3, 6);
            Tensor alpha = desk.make("out alpha " + rule, DType.F32, 5);
            Tensor w = new Tensor(p.buffer(), 64, bits.shape(), DType.F32);
            b.weightBinarizeFwd(bits, alpha, w);
            Tensor mean = desk.make("out mean " + rule, DType.F32, 7);
            Tensor variance = desk.make("out variance " + rule, DType.F32, 7);
            Tensor sums = desk.make("out running " + rule, DType.F64, 2, 7);
            Tensors.write(b, sums, new double[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14});
            UpdateSpec spec =
                new UpdateSpec(
                    p,
                    ruled,
                    List.of(
                        new UpdateSpec.Segment(0, 10, 0),
                        new UpdateSpec.Segment(16, 90, 0.1),
                        new UpdateSpec.Segment(106, 40, 0.1)),
                    List.of(
                        new UpdateSpec.BinaryParameter(
                            w,
                            new Tensor(ruled.buffer(), 64, bits.shape(), DType.F32),
                            bits,
                            alpha,
                            rule,
                            null,
                            null)),
                    List.of(new UpdateSpec.RunningStatistics(mean, variance, sums)),
                    0.1);
            try (Update update = b.planUpdate(spec)) {
              b.copy(ruled, g);
              b.finiteNorm(update, step, workspace);
              b.adam(update, m, desk.make("out v " + rule, DType.F32, 200), step, 0.9, 0.999, 1e-8);
              for (SgdForm form : SgdForm.values()) {
                b.copy(ruled, g);
                b.finiteNorm(update, step, workspace);
                b.sgd(update, m, step, 0.9, form);
              }
              b.batchNormCommit(update, step, 3);
            }
          }
          ImageSpec spec = new ImageSpec(4, 5, 3, 4, 4, 1);
          Tensor pixels = desk.make("pixels", DType.U8, 2, 4, 5, 3);
          ByteBuffer bytes = ByteBuffer.allocate(120);
          for (int i = 0; i < 120; i++) {
            bytes.put((byte) (7 * i));
          }
          b.write(pixels, bytes.flip());
          Tensor crops = desk.make("crops", DType.I32, 2, 3);
          b.write(
              crops,
              ByteBuffer.allocate(24)
                  .order(ByteOrder.LITTLE_ENDIAN)
                  .putInt(0)
                  .putInt(2)
                  .putInt(1)
                  .putInt(2)
                  .putInt(3)
                  .putInt(0)
                  .flip());
          Tensor mean = desk.make("mean", DType.F64, 3);
          Tensor std = desk.make("std", DType.F64, 3);
          Tensors.write(b, mean, new double[] {0.5, 0.4, 0.3});
          Tensors.write(b, std, new double[] {0.25, 0.2, 1});
          b.imageNormalize(
              spec, 2, desk.make("out image", DType.F32, 2, 4, 4, 3), pixels, crops, mean, std);
        });
  }

  @Test
  void wrongTypesShapesOwnersAndClosedThingsAreRefused() {
    Desk desk = new Desk(backend);
    Tensor x = desk.make("x", DType.F32, 2, 3, 3, 8);
    Tensor bits = desk.make("bits", DType.BITS, 2, 3, 3, 8);
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.signPackFwd(3, bits, x, null),
        "more images than there are");
    assertThrows(
        IllegalArgumentException.class, () -> backend.signPackFwd(2, x, x, null), "floats as bits");
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.signPackFwd(2, bits, x, desk.make("t", DType.F32, 7)),
        "threshold of 7");
    Tensor foreign = new Desk(reference).make("x", DType.F32, 2, 3, 3, 8);
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.signPackFwd(2, bits, foreign, null),
        "memory of another backend");
    assertThrows(
        IllegalArgumentException.class,
        () ->
            backend.planBinaryConv(
                new Conv2dSpec(3, 3, 0, 1, 3, 3, 1, 1), 1, DType.F32, Gradient.FP32));
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.planConv2d(new Conv2dSpec(1, 1, 1, 1, 3, 3, 1, 0), 1, DType.F32));
    Tensor ten = desk.make("ten", DType.F32, 10);
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.planUpdate(update(ten, ten, 0, 1000)),
        "segments of another buffer");
    assertThrows(
        IllegalArgumentException.class,
        () -> backend.planUpdate(update(ten, desk.make("nine", DType.F32, 9), 0, 9)),
        "gradients of another buffer");
    StepState step =
        new StepState(desk.make("state", DType.F64, 4), desk.make("metrics", DType.F64, 4));
    try (Update update = backend.planUpdate(update(ten, ten, 0, 10))) {
      assertThrows(
          IllegalArgumentException.class,
          () -> backend.sgd(update, desk.make("short", DType.F32, 9), step, 0.9, SgdForm.PYTORCH),
          "moments of another buffer");
      assertThrows(
          IllegalArgumentException.class,
          () -> reference.sgd(update, ten, step, 0.9, SgdForm.PYTORCH),
          "update of another backend");
      assertThrows(
          IllegalArgumentException.class,
          () -> backend.batchNormCommit(update, step, 0),
          "no micro-batch");
    }
    Plan.Linear plan = backend.planLinear(3, 2, 1, DType.F32);
    plan.close();
    plan.close();
    assertThrows(
        IllegalStateException.class,
        () ->
            backend.linearBwdInput(
                plan,
                1,
                desk.make("dx", DType.F32, 1, 3),
                desk.make("dy", DType.F32, 1, 2),
                desk.make("w", DType.F32, 2, 3),
                desk.scratch(plan.workspaceBytes())));
    x.buffer().close();
    x.buffer().close();
    assertThrows(IllegalStateException.class, () -> backend.signPackFwd(2, bits, x, null));
  }

  private static UpdateSpec update(Tensor parameters, Tensor gradients, long begin, long count) {
    return new UpdateSpec(
        parameters,
        gradients,
        List.of(new UpdateSpec.Segment(begin, count, 0)),
        List.of(),
        List.of(),
        0.1);
  }
}
