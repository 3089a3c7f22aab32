package bireal.bench;

import static org.bytedeco.pytorch.global.torch.adaptive_avg_pool2d;
import static org.bytedeco.pytorch.global.torch.avg_pool2d;
import static org.bytedeco.pytorch.global.torch.batch_norm;
import static org.bytedeco.pytorch.global.torch.clamp;
import static org.bytedeco.pytorch.global.torch.conv2d;
import static org.bytedeco.pytorch.global.torch.cross_entropy_loss;
import static org.bytedeco.pytorch.global.torch.linear;
import static org.bytedeco.pytorch.global.torch.max_pool2d;
import static org.bytedeco.pytorch.global.torch.randn;
import static org.bytedeco.pytorch.global.torch.set_num_threads;

import bireal.train.Safetensors;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Adam;
import org.bytedeco.pytorch.AdamOptions;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarOptional;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch.MemoryFormat;

/**
 * The same network as a PyTorch user writes it, by the authors' code: float convolutions of +-1
 * values, autograd, the activation as clamp, polynomial and detach.
 *
 * <p>Arguments: train|eval, case, threads, runs, contiguous|channels_last; or check, case, threads,
 * weights file, file of our results: exits with 1 if its own differ.
 */
@SuppressWarnings("try") // a PointerScope and a NoGradGuard work by being open
final class LibtorchSide {
  private final Case c;
  private boolean training;
  private final Map<String, Tensor> parameters = new LinkedHashMap<>();
  private final Map<String, Tensor> statistics = new LinkedHashMap<>();

  private LibtorchSide(Case c, boolean training, MemoryFormat format) {
    this.c = c;
    this.training = training;
    if (c.imagenetStem()) {
      weight("conv1.weight", format, c.width(), c.channels(), 7, 7);
    } else {
      weight("conv1.weight", format, c.width(), c.channels(), 3, 3);
    }
    norm("bn1", c.width());
    int in = c.width();
    for (int stage = 0; stage < 4; stage++) {
      int out = c.width() << stage;
      for (int block = 0; block < 4; block++) {
        String name = "layer" + (stage + 1) + "." + block;
        weight(name + ".binary_conv.weights", format, out, in, 3, 3);
        norm(name + ".bn1", out);
        if (in != out) {
          weight(name + ".downsample.1.weight", format, out, in, 1, 1);
          norm(name + ".downsample.2", out);
        }
        in = out;
      }
    }
    parameter("fc.weight", randn(c.classes(), in).mul(new Scalar(0.01)));
    parameter("fc.bias", randn(c.classes()).mul(new Scalar(0.01)));
  }

  private void parameter(String name, Tensor value) {
    parameters.put(name, value.detach().requires_grad_(true));
  }

  private void weight(String name, MemoryFormat format, long... shape) {
    double scale = Math.sqrt(2.0 / (shape[1] * shape[2] * shape[3]));
    parameter(name, randn(shape).mul(new Scalar(scale)).contiguous(format));
  }

  private void norm(String name, long channels) {
    parameter(name + ".weight", randn(channels).mul(new Scalar(0)).add(new Scalar(1)));
    parameter(name + ".bias", randn(channels).mul(new Scalar(0)));
    statistics.put(name + ".running_mean", randn(channels).mul(new Scalar(0)));
    statistics.put(name + ".running_var", randn(channels).mul(new Scalar(0)).add(new Scalar(1)));
  }

  private Tensor norm(String name, Tensor x) {
    return batch_norm(
        x,
        optional(parameters.get(name + ".weight")),
        optional(parameters.get(name + ".bias")),
        optional(statistics.get(name + ".running_mean")),
        optional(statistics.get(name + ".running_var")),
        training,
        0.1,
        1e-5,
        true);
  }

  private static TensorOptional optional(Tensor tensor) {
    return new TensorOptional(tensor);
  }

  private static Tensor conv(Tensor x, Tensor w, long stride, long pad) {
    return conv2d(
        x,
        w,
        new TensorOptional(),
        new long[] {stride, stride},
        new long[] {pad, pad},
        new long[] {1, 1},
        1);
  }

  private static Tensor clipped(Tensor x) {
    return clamp(x, new ScalarOptional(new Scalar(-1.0)), new ScalarOptional(new Scalar(1.0)));
  }

  private static Tensor binaryActivation(Tensor x) {
    Tensor clamped = clipped(x);
    Tensor smooth = clamped.mul(clamped.abs().neg().add(new Scalar(2)));
    return smooth.add(x.sign().sub(smooth).detach());
  }

  private static Tensor binaryWeights(Tensor w) {
    Tensor scale = w.detach().abs().mean(new long[] {1, 2, 3}, true, new ScalarTypeOptional());
    Tensor clamped = clipped(w);
    return clamped.add(scale.mul(w.sign()).sub(clamped).detach());
  }

  private Tensor forward(Tensor images) {
    Tensor x =
        norm(
            "bn1",
            conv(
                images,
                parameters.get("conv1.weight"),
                c.imagenetStem() ? 2 : 1,
                c.imagenetStem() ? 3 : 1));
    if (c.imagenetStem()) {
      x =
          max_pool2d(
              x, new long[] {3, 3}, new long[] {2, 2}, new long[] {1, 1}, new long[] {1, 1}, false);
    }
    for (int stage = 1; stage <= 4; stage++) {
      for (int block = 0; block < 4; block++) {
        String name = "layer" + stage + "." + block;
        boolean down = parameters.containsKey(name + ".downsample.1.weight");
        Tensor shortcut = x;
        if (down) {
          shortcut =
              avg_pool2d(
                  x,
                  new long[] {2, 2},
                  new long[] {2, 2},
                  new long[] {0, 0},
                  false,
                  true,
                  new LongOptional());
          shortcut =
              norm(
                  name + ".downsample.2",
                  conv(shortcut, parameters.get(name + ".downsample.1.weight"), 1, 0));
        }
        Tensor w = binaryWeights(parameters.get(name + ".binary_conv.weights"));
        x = norm(name + ".bn1", conv(binaryActivation(x), w, down ? 2 : 1, 1)).add(shortcut);
      }
    }
    x = adaptive_avg_pool2d(x, 1, 1).flatten(1, -1);
    return linear(x, parameters.get("fc.weight"), optional(parameters.get("fc.bias")));
  }

  private void load(Path file) {
    try (Safetensors weights = Safetensors.open(file);
        NoGradGuard none = new NoGradGuard()) {
      List<Map<String, Tensor>> all = List.of(parameters, statistics);
      for (Map<String, Tensor> some : all) {
        for (Map.Entry<String, Tensor> entry : some.entrySet()) {
          ByteBuffer bytes =
              ByteBuffer.allocateDirect(Math.toIntExact(weights.bytes(entry.getKey())))
                  .order(ByteOrder.LITTLE_ENDIAN);
          weights.read(entry.getKey(), bytes);
          float[] values = new float[bytes.capacity() / 4];
          bytes.clear();
          bytes.asFloatBuffer().get(values);
          entry.getValue().copy_(Tensor.create(values, entry.getValue().shape()));
        }
      }
    }
  }

  public static void main(String[] args) throws Exception {
    Case full = Case.of(args[1]);
    Case c = args[0].equals("check") ? full.small() : full;
    boolean train = args[0].equals("train");
    boolean check = args[0].equals("check");
    MemoryFormat format =
        switch (check ? "contiguous" : args[4]) {
          case "contiguous" -> MemoryFormat.Contiguous;
          case "channels_last" -> MemoryFormat.ChannelsLast;
          default -> throw new IllegalArgumentException("format: " + args[4]);
        };
    set_num_threads(Integer.parseInt(args[2]));
    LibtorchSide side = new LibtorchSide(c, train, format);
    Tensor images =
        Tensor.create(c.images(), c.batch(), c.side(), c.side(), c.channels())
            .permute(0, 3, 1, 2)
            .contiguous(format);
    long[] classes = new long[c.batch()];
    for (int i = 0; i < classes.length; i++) {
      classes[i] = c.labels()[i];
    }
    Tensor labels = Tensor.create(classes, c.batch());
    if (check) {
      side.load(Path.of(args[3]));
      System.exit(side.agrees(images, labels, Path.of(args[4])) ? 0 : 1);
    }
    TensorVector all = new TensorVector(side.parameters.values().toArray(new Tensor[0]));
    Adam adam = new Adam(all, new AdamOptions(Case.LEARNING_RATE));
    double seconds =
        Case.median(
            Integer.parseInt(args[3]),
            () -> {
              try (PointerScope scope = new PointerScope()) {
                if (train) {
                  adam.zero_grad();
                  cross_entropy_loss(side.forward(images), labels).backward();
                  adam.step();
                } else {
                  NoGradGuard none = new NoGradGuard();
                  side.forward(images);
                  none.close();
                }
              }
            });
    c.report(seconds, "libtorch 2.10 " + args[4]);
  }

  /**
   * Logits in evaluation and in training mode, and gradients from end to start of the network: a
   * wrong padding, a forgotten factor or another activation gradient is off by far more than the
   * rounding of our gradients to 16 bits.
   */
  private boolean agrees(Tensor images, Tensor labels, Path results) {
    try (Safetensors ours = Safetensors.open(results)) {
      boolean same = true;
      try (NoGradGuard none = new NoGradGuard()) {
        same &= close("evaluation", ours, forward(images), 1e-3);
      }
      training = true;
      Tensor logits = forward(images);
      same &= close("training", ours, logits, 1e-3);
      cross_entropy_loss(logits, labels).backward();
      for (String name : new TreeSet<>(Case.COMPARED_GRADIENTS)) {
        same &= close(name, ours, parameters.get(name).grad(), 0.01);
      }
      return same;
    }
  }

  private static boolean close(String name, Safetensors ours, Tensor theirs, double bound) {
    float[] expected = ours.read(name).floats();
    float[] values = new float[expected.length];
    if (theirs.numel() != expected.length) {
      System.err.printf("%s: %d values, expected %d%n", name, theirs.numel(), expected.length);
      return false;
    }
    new FloatPointer(theirs.detach().contiguous().data_ptr()).get(values);
    double difference = 0;
    double size = 0;
    for (int i = 0; i < values.length; i++) {
      difference += Math.pow(expected[i] - values[i], 2);
      size += Math.pow(expected[i], 2);
    }
    double relative = Math.sqrt(difference / size);
    System.out.printf("%s differs by %.2g of its size (allowed %.2g)%n", name, relative, bound);
    return relative <= bound;
  }
}
