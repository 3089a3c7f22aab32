package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Tensors;
import bireal.backend.UpdateSpec;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A classification network: a list of blocks between an input of images [N,H,W,C] and logits
 * [N,classes]. Planned for a largest micro-batch; {@link #allocate} takes the memory. Owned by
 * whoever built it. One thread at a time.
 */
public final class Network implements AutoCloseable {
  private final Planner planner;
  private final Backend backend;
  private final Tensor input;
  private final Stem stem;
  private final Tensor labels;

  /** Walked by index in a step: an iterator would be an allocation. */
  private final List<Block> blocks = new ArrayList<>();

  private final Map<String, Tensor> landmarks = new LinkedHashMap<>();
  private final Head head;
  private Tensor lastStage;
  private boolean forwardDone;

  /**
   * Plans the network for images [H,W,C] = {@code image}. Throws IllegalArgumentException, with the
   * sizes, for an image that it cannot take.
   */
  public Network(NetworkConfig config, Shape image, Planner planner) {
    this.planner = planner;
    this.backend = planner.backend();
    input =
        planner.outside(Shape.of(planner.maxImages(), image.dim(0), image.dim(1), image.dim(2)));
    stem = new Stem(config);
    labels = planner.persist(Shape.of(planner.maxImages()), DType.I32);
    Head planned = null;
    try {
      List<NetworkBlocks.Placed> placed = NetworkBlocks.of(config, stem);
      placed.forEach(p -> blocks.add(p.block()));
      Activation activation = new Activation(input, null, null, 0);
      for (int i = 0; i < blocks.size(); i++) {
        Sign next = i + 1 < blocks.size() ? blocks.get(i + 1).consumes() : null;
        activation = blocks.get(i).plan(planner, activation, next);
        planner.nextBlock();
        if (placed.get(i).landmark() != null && planner.training()) {
          landmarks.put(placed.get(i).landmark(), activation.real());
        }
      }
      lastStage = activation.real();
      planned = new Head(planner, activation, config.classes());
      landmarks.put("logits", planned.logits());
      planner.finish();
    } catch (RuntimeException e) {
      close();
      throw e;
    }
    head = planned;
  }

  /** Takes the planned memory; see {@link Planner#allocate}. */
  public void allocate() {
    planner.allocate();
  }

  /** Images of the next forward pass, [N,H,W,C]. */
  public Tensor input() {
    return input;
  }

  /** Classes of these images, [N] I32. */
  public Tensor labels() {
    return labels;
  }

  public Tensor logits() {
    return head.logits();
  }

  /**
   * Gradient of the loss with respect to the logits; the loss fills it before {@link #backward}.
   */
  public Tensor logitsGradient() {
    return head.logitsGradient();
  }

  /**
   * Outputs of the stem, of each stage (of a network without named stages: of each block), and the
   * logits, by name. A network planned for evaluation keeps the logits only.
   */
  public Map<String, Tensor> landmarks() {
    return landmarks;
  }

  /** Its binary convolutions, from the first to the last. */
  public List<BinaryUnit> binaryUnits() {
    return planner.binaryUnits();
  }

  public Planner planner() {
    return planner;
  }

  /** From the first {@code n} images of {@link #input} to the logits. */
  public void forward(int n, Pass pass) {
    if (pass == Pass.TRAIN && !planner.training()) {
      throw new IllegalStateException("a network planned for evaluation has no TRAIN pass");
    }
    if (n <= planner.passImages()) {
      forward(n, pass, input, head.logits());
    } else {
      int[] first = parts(n);
      planner
          .passBackend()
          .passes(
              first.length - 1,
              i ->
                  forward(
                      first[i + 1] - first[i],
                      pass,
                      from(input, first[i]),
                      from(head.logits(), first[i])));
    }
    forwardDone = pass == Pass.TRAIN;
  }

  private void forward(int n, Pass pass, Tensor images, Tensor logits) {
    stem.forward(n, pass, images);
    for (int i = 1; i < blocks.size(); i++) {
      blocks.get(i).forward(n, pass);
    }
    head.forward(n, logits);
  }

  /**
   * Where the parts of {@code n} images begin, and n: as many images as a pass takes, towards the
   * end fewer, so that lanes end together; 1, 2 or 4, because binary convolutions of small images
   * compute two images in the time of one.
   */
  private int[] parts(int n) {
    int lanes = planner.passBackend().lanes();
    int[] first = new int[n + 1];
    int parts = 0;
    for (int begin = 0; begin < n; first[++parts] = begin) {
      int share = (n - begin) / lanes;
      int most = lanes == 1 ? share : Math.max(1, Integer.highestOneBit(share));
      begin += Math.min(planner.passImages(), most);
    }
    return Arrays.copyOf(first, parts + 1);
  }

  /** The images of {@code whole} from {@code first} on. */
  private static Tensor from(Tensor whole, int first) {
    Shape shape = whole.shape();
    long[] dims = new long[shape.rank()];
    dims[0] = shape.dim(0) - first;
    for (int d = 1; d < dims.length; d++) {
      dims[d] = shape.dim(d);
    }
    long offset = first * (whole.bytes() / shape.dim(0));
    return new Tensor(whole.buffer(), whole.offsetBytes() + offset, Shape.of(dims), whole.dtype());
  }

  /**
   * From {@link #logitsGradient} to the gradients of all parameters; needs a TRAIN forward of the
   * same images before it.
   */
  public void backward(int n, GradMode mode) {
    if (!forwardDone) {
      throw new IllegalStateException("backward without a forward pass in TRAIN mode before it");
    }
    forwardDone = false;
    head.backward(n, mode);
    for (int i = blocks.size() - 1; i >= 0; i--) {
      blocks.get(i).backward(n, mode);
    }
    backend.castGradients(planner.gradientCasts(), mode);
  }

  /** As {@link bireal.backend.Plan.BinaryConv#fallbacks}, of all binary convolutions. */
  public long gradientFallbacks() {
    long total = 0;
    List<Layer> layers = planner.owned();
    for (int i = 0; i < layers.size(); i++) {
      total += layers.get(i).fallbacks();
    }
    return total;
  }

  /**
   * Once after every change of parameters or statistics that was not a training step's; there
   * {@link #castWeights} suffices.
   */
  public void refresh() {
    List<Layer> layers = planner.owned();
    for (int i = 0; i < layers.size(); i++) {
      layers.get(i).refresh();
    }
    castWeights();
  }

  /** After every change of the parameters: the copies that libraries take follow. */
  public void castWeights() {
    backend.castWeights(planner.weightCasts());
  }

  /** Draws all parameters from {@code seed} and their names; statistics as PyTorch starts them. */
  public void initialize(long seed) {
    for (State state : planner.states()) {
      if (state instanceof Parameter parameter) {
        long stream = Rng.state(seed, "init/" + parameter.name());
        float[] published = new float[(int) parameter.shape().count()];
        for (int i = 0; i < published.length; i++) {
          double span = parameter.initHigh() - parameter.initLow();
          published[i] = (float) (parameter.initLow() + span * Rng.uniform(stream, i));
        }
        setPublished(parameter, published);
      } else if (state.dtype() == DType.F32) {
        float[] values = new float[(int) state.shape().count()];
        Arrays.fill(values, state.name().endsWith("running_var") ? 1f : 0f);
        setPublished(state, values);
      } else {
        backend.zero(state.value());
      }
    }
    refresh();
  }

  /** Values of a float state in published order. */
  public float[] published(State state) {
    return state.toPublished(Tensors.floats(backend, state.value()));
  }

  /**
   * Gradient of a parameter in published order, of binary weights after their rule; between
   * backward and the end of the step. Not for a step: it takes memory.
   */
  public float[] publishedGradient(Parameter parameter) {
    for (Layer layer : planner.owned()) {
      UpdateSpec.BinaryParameter binary = layer.binaryParameter();
      if (binary != null && binary.w() == parameter.value()) {
        try (Buffer buffer = backend.allocate(binary.w().bytes(), "a gradient")) {
          Tensor ruled = new Tensor(buffer, 0, binary.w().shape(), DType.F32);
          backend.copy(ruled, binary.gradient());
          backend.weightGradient(ruled, binary.w(), binary.alpha(), binary.rule());
          return parameter.toPublished(Tensors.floats(backend, ruled));
        }
      }
    }
    return parameter.toPublished(Tensors.floats(backend, parameter.gradient()));
  }

  /** Replaces a float state; {@link #refresh} must follow the last one. */
  public void setPublished(State state, float[] published) {
    Tensors.write(backend, state.value(), state.fromPublished(published));
  }

  /**
   * Throws IllegalArgumentException if a training pass of {@code n} images would leave batch
   * normalisation with a single value per channel: in the last stage, where the images are
   * smallest.
   */
  public void requireTrainable(int n) {
    Shape last = lastStage.shape();
    if (n * last.dim(1) * last.dim(2) < 2) {
      throw new IllegalArgumentException(
          "a micro-batch of "
              + n
              + " image is left over, and the last stage is "
              + last.dim(1)
              + "x"
              + last.dim(2)
              + ": batch normalisation needs at least 2 values per channel. Choose train.batch and train.micro_batch so that no single image"
              + " remains, or a larger data.image_size");
    }
  }

  /** Frees plans and memory. */
  @Override
  public void close() {
    planner.close();
  }
}
