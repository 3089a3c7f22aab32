package bireal.backend.cuda;

import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.GradientCast;
import bireal.backend.cuda.CudnnConvolution.Choice;
import bireal.backend.cuda.CudnnConvolution.Pass;
import bireal.runtime.DeviceException;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Set;

/**
 * Which of cuDNN's algorithms a convolution uses: the fastest that was measured on this device and
 * passed a check. A file in the cache folder keeps the choice, by device and versions, so that the
 * next run starts fast and computes the same bits.
 */
final class CudnnAlgorithms {
  /** System property: another file, or {@code none}. */
  static final String FILE = "bireal.cuda.algorithms";

  /** Images of the check; outputs that it compares. */
  private static final int CHECKED_IMAGES = 2;

  private static final int CHECKED_VALUES = 64;

  private CudnnAlgorithms() {}

  /** Throws DeviceException if nothing passes. */
  static Choice choose(CudnnConvolution convolution, Pass pass) {
    String key = key(convolution, pass);
    Properties known = read();
    Choice kept = parse(known.getProperty(key));
    List<String> wrong = new ArrayList<>();
    Set<Choice> seen = new HashSet<>(); // one refused is not asked again
    if (kept != null && seen.add(kept) && passes(convolution, pass, kept, wrong)) {
      return kept;
    }
    for (boolean nchw : new boolean[] {false, true}) {
      for (Choice offer : convolution.offers(pass, convolution.maxImages(), nchw, true)) {
        if (seen.add(offer) && passes(convolution, pass, offer, wrong)) {
          keep(key, offer);
          return offer;
        }
      }
    }
    throw new DeviceException(
        "cuDNN",
        0,
        "cuDNN "
            + convolution.owner().about().dnnVersion()
            + " has no usable deterministic algorithm for pass "
            + pass
            + " of "
            + convolution.spec()
            + " in "
            + convolution.type()
            + (wrong.isEmpty() ? "" : "; " + String.join("; ", wrong)),
        false);
  }

  private static String key(CudnnConvolution convolution, Pass pass) {
    CudaDevice about = convolution.owner().about();
    Conv2dSpec s = convolution.spec();
    return String.join(
        "/",
        about.name(),
        about.computeCapability(),
        "driver " + about.driverVersion(),
        "cudnn " + about.dnnVersion(),
        pass.name(),
        convolution.type().name(),
        convolution.maxImages()
            + "x"
            + s.H()
            + "x"
            + s.W()
            + "x"
            + s.C()
            + " to "
            + s.K()
            + ", "
            + s.R()
            + "x"
            + s.S()
            + "/"
            + s.stride()
            + " pad "
            + s.pad());
  }

  // The file.

  private static Path file() {
    String named = System.getProperty(FILE);
    if (named != null) {
      return named.equals("none") ? null : Path.of(named);
    }
    String cache = System.getenv("XDG_CACHE_HOME");
    Path base =
        cache != null && !cache.isBlank()
            ? Path.of(cache)
            : Path.of(System.getProperty("user.home"), ".cache");
    return base.resolve("bireal").resolve("cudnn-algorithms.properties");
  }

  private static Properties read() {
    Properties known = new Properties();
    Path file = file();
    if (file != null && Files.exists(file)) {
      try (Reader in = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
        known.load(in);
      } catch (IOException | IllegalArgumentException e) {
        throw new UncheckedIOException(
            file + " cannot be read; delete it, it is made again", new IOException(e));
      }
    }
    return known;
  }

  /** Written beside and moved: another process sees the old file or the new one. */
  private static void keep(String key, Choice choice) {
    Path file = file();
    if (file == null) {
      return;
    }
    Properties known = read();
    known.setProperty(
        key,
        choice.algorithm()
            + " "
            + choice.mathType()
            + " "
            + (choice.nchw() ? "nchw" : "nhwc")
            + " "
            + choice.bytes());
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      Path partial = Files.createTempFile(file.toAbsolutePath().getParent(), "partial-", null);
      try (Writer out = Files.newBufferedWriter(partial, StandardCharsets.UTF_8)) {
        known.store(out, "cuDNN's fastest algorithms, by device and versions; may be deleted");
      }
      Files.move(
          partial, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      throw new UncheckedIOException(
          file + " cannot be written; make its folder writable, or run with -D" + FILE + "=none",
          e);
    }
  }

  private static Choice parse(String text) {
    String[] parts = text == null ? new String[0] : text.split(" ");
    if (parts.length != 4 || !parts[2].matches("nchw|nhwc")) {
      return null;
    }
    try {
      return new Choice(
          Integer.parseInt(parts[0]),
          Integer.parseInt(parts[1]),
          parts[2].equals("nchw"),
          Long.parseLong(parts[3]));
    } catch (NumberFormatException e) {
      return null; // chosen anew
    }
  }

  // The check.

  /**
   * Runs it on small integers, whose sums every type holds exactly, and compares some outputs with
   * the formula: no difference is allowed. Adds to {@code wrong} what differs, and says so.
   */
  private static boolean passes(
      CudnnConvolution convolution, Pass pass, Choice chosen, List<String> wrong) {
    CudaBackend owner = convolution.owner();
    Conv2dSpec spec = convolution.spec();
    int n = Math.min(CHECKED_IMAGES, convolution.maxImages());
    int xCount = Math.toIntExact(spec.inputCount(n));
    int yCount = Math.toIntExact(spec.outputCount(n));
    int wCount = Math.toIntExact(spec.weights().count());
    int[] x = values("x", xCount);
    int[] y = values("y", yCount);
    int[] w = values("w", wCount);
    DType type = convolution.type();
    Choice choice = convolution.at(pass, chosen, n);
    if (choice == null) {
      wrong.add("algorithm " + chosen.algorithm() + " is not for " + n + " images");
      return false;
    }
    long scratch = convolution.workspaceBytes(choice, n);
    try (Buffer xs = owner.allocateOwn(type.bytes(Shape.of(xCount)), "cuDNN check, x");
        Buffer ys = owner.allocateOwn(type.bytes(Shape.of(yCount)), "cuDNN check, y");
        Buffer ws = owner.allocateOwn(type.bytes(Shape.of(wCount)), "cuDNN check, w");
        Buffer workspace = owner.allocateOwn(Math.max(256, scratch), "cuDNN check, workspace")) {
      Tensor xTensor = new Tensor(xs, 0, Shape.of(xCount), type);
      Tensor yTensor = new Tensor(ys, 0, Shape.of(yCount), type);
      Tensor wTensor = new Tensor(ws, 0, Shape.of(wCount), type);
      write(owner, xTensor, x);
      write(owner, yTensor, y);
      write(owner, wTensor, w);
      switch (pass) {
        case FORWARD ->
            convolution.run(
                pass,
                choice,
                ys.address(),
                xs.address(),
                ws.address(),
                n,
                false,
                workspace.address());
        case BACKWARD_INPUT ->
            convolution.run(
                pass,
                choice,
                xs.address(),
                ys.address(),
                ws.address(),
                n,
                false,
                workspace.address());
        case BACKWARD_WEIGHT ->
            convolution.run(
                pass,
                choice,
                ws.address(),
                xs.address(),
                ys.address(),
                n,
                false,
                workspace.address());
      }
      Tensor out =
          switch (pass) {
            case FORWARD -> yTensor;
            case BACKWARD_INPUT -> xTensor;
            case BACKWARD_WEIGHT -> wTensor;
          };
      float[] got = read(owner, out);
      for (int i = 0; i < CHECKED_VALUES; i++) {
        int at = (int) ((long) i * (got.length - 1) / (CHECKED_VALUES - 1));
        int expected =
            switch (pass) {
              case FORWARD -> forward(spec, x, w, at);
              case BACKWARD_INPUT -> backwardInput(spec, y, w, at);
              case BACKWARD_WEIGHT -> backwardWeight(spec, n, x, y, at);
            };
        if (got[at] != expected) {
          wrong.add(
              "algorithm "
                  + choice.algorithm()
                  + (choice.nchw() ? " (nchw)" : "")
                  + " computed "
                  + got[at]
                  + " instead of "
                  + expected
                  + " at element "
                  + at);
          System.err.println(
              "bireal: not used, cuDNN "
                  + owner.about().dnnVersion()
                  + ", "
                  + pass
                  + " of "
                  + spec
                  + " in "
                  + type
                  + ": "
                  + wrong.get(wrong.size() - 1));
          return false;
        }
      }
      return true;
    }
  }

  /** Of -1, 0 and 1, a quarter not 0. */
  private static int[] values(String name, int count) {
    long state = Rng.state(7, "cudnn/" + name);
    int[] values = new int[count];
    for (int i = 0; i < count; i++) {
      double u = Rng.uniform(state, i);
      values[i] = u < 0.125 ? -1 : u < 0.25 ? 1 : 0;
    }
    return values;
  }

  private static int forward(Conv2dSpec s, int[] x, int[] w, int at) {
    int k = at % s.K();
    int q = at / s.K() % s.Q();
    int p = at / s.K() / s.Q() % s.P();
    int n = at / s.K() / s.Q() / s.P();
    int sum = 0;
    for (int r = 0; r < s.R(); r++) {
      for (int t = 0; t < s.S(); t++) {
        int h = p * s.stride() + r - s.pad();
        int v = q * s.stride() + t - s.pad();
        if (h < 0 || h >= s.H() || v < 0 || v >= s.W()) {
          continue;
        }
        for (int c = 0; c < s.C(); c++) {
          sum +=
              x[((n * s.H() + h) * s.W() + v) * s.C() + c]
                  * w[((k * s.R() + r) * s.S() + t) * s.C() + c];
        }
      }
    }
    return sum;
  }

  private static int backwardInput(Conv2dSpec s, int[] y, int[] w, int at) {
    int c = at % s.C();
    int v = at / s.C() % s.W();
    int h = at / s.C() / s.W() % s.H();
    int n = at / s.C() / s.W() / s.H();
    int sum = 0;
    for (int r = 0; r < s.R(); r++) {
      for (int t = 0; t < s.S(); t++) {
        int p = h + s.pad() - r;
        int q = v + s.pad() - t;
        if (p < 0 || q < 0 || p % s.stride() != 0 || q % s.stride() != 0) {
          continue;
        }
        p /= s.stride();
        q /= s.stride();
        if (p >= s.P() || q >= s.Q()) {
          continue;
        }
        for (int k = 0; k < s.K(); k++) {
          sum +=
              y[((n * s.P() + p) * s.Q() + q) * s.K() + k]
                  * w[((k * s.R() + r) * s.S() + t) * s.C() + c];
        }
      }
    }
    return sum;
  }

  private static int backwardWeight(Conv2dSpec s, int images, int[] x, int[] y, int at) {
    int c = at % s.C();
    int t = at / s.C() % s.S();
    int r = at / s.C() / s.S() % s.R();
    int k = at / s.C() / s.S() / s.R();
    int sum = 0;
    for (int n = 0; n < images; n++) {
      for (int p = 0; p < s.P(); p++) {
        for (int q = 0; q < s.Q(); q++) {
          int h = p * s.stride() + r - s.pad();
          int v = q * s.stride() + t - s.pad();
          if (h >= 0 && h < s.H() && v >= 0 && v < s.W()) {
            sum +=
                x[((n * s.H() + h) * s.W() + v) * s.C() + c]
                    * y[((n * s.P() + p) * s.Q() + q) * s.K() + k];
          }
        }
      }
    }
    return sum;
  }

  /** Values -1, 0 and 1 have the same first bits in every type. */
  private static void write(CudaBackend owner, Tensor tensor, int[] values) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(tensor.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    for (int value : values) {
      switch (tensor.dtype()) {
        case F16 -> bytes.putShort((short) (value == 0 ? 0 : value < 0 ? 0xbc00 : 0x3c00));
        case BF16 -> bytes.putShort((short) (value == 0 ? 0 : value < 0 ? 0xbf80 : 0x3f80));
        default -> bytes.putFloat(value);
      }
    }
    owner.write(tensor, bytes.flip());
  }

  private static float[] read(CudaBackend owner, Tensor tensor) {
    int count = Math.toIntExact(tensor.shape().count());
    Shape shape = Shape.of(count);
    float[] values = new float[count];
    try (Buffer wide = owner.allocateOwn(DType.F32.bytes(shape), "cuDNN check, result")) {
      Tensor floats = new Tensor(wide, 0, shape, DType.F32);
      if (tensor.dtype() == DType.F32) {
        owner.copy(floats, tensor);
      } else {
        Tensor whole = new Tensor(tensor.buffer(), tensor.offsetBytes(), shape, tensor.dtype());
        owner.castGradients(List.of(new GradientCast(floats, whole)), GradMode.OVERWRITE);
      }
      ByteBuffer bytes =
          ByteBuffer.allocate(Math.toIntExact(floats.bytes())).order(ByteOrder.LITTLE_ENDIAN);
      owner.read(bytes, floats);
      bytes.asFloatBuffer().get(values);
    }
    return values;
  }
}
