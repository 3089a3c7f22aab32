package bireal.nn;

import bireal.backend.Arena;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.GradientCast;
import bireal.backend.Plan;
import bireal.backend.StepState;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightCast;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Collects what a network needs before a byte is taken: activations kept from forward to backward,
 * overlays that are never alive together, parameters in one flat buffer, workspace; and a row for
 * each layer, which {@code bireal info} prints. The planner owns the memory and frees it.
 */
public final class Planner implements AutoCloseable {
  /** Parameters start at multiples of this many floats (64 bytes). */
  private static final long FLOAT_ALIGNMENT = 16;

  /** A layer as people see it: {@code shape} of one image's output; MACs of one image. */
  public record LayerRow(
      String name,
      String kind,
      Shape shape,
      long parameters,
      long binaryMacs,
      long realMacs,
      String kernel) {}

  /** What a plan reads and writes in place of a parameter and its gradient; each may be null. */
  private record Copies(Parameter parameter, Tensor operand, Tensor rounded, Tensor alphaOrNull) {}

  /** Bytes that somebody asked for. */
  public record MemoryRow(String what, long bytes) {}

  private final Backend backend;
  private final Backend passBackend;
  private final int maxImages;
  private final DType real;
  private final Gradient gradientOrNull;
  private final Arena images = new Arena("images and logits");
  private final Arena[] kept;
  private int keptInUse;
  private final Arena[] gradientSlots = {
    new Arena("gradients of activations (a)"),
    new Arena("gradients of activations (b)"),
    new Arena("gradients of the narrow stream (a)"),
    new Arena("gradients of the narrow stream (b)")
  };
  private final Arena dz = new Arena("gradients of convolution outputs");
  private final Arena db;
  private final Arena small = new Arena("gradients of downsampled inputs");
  private final Arena workspace;
  private final Arena persistent = new Arena("statistics, packed and rounded weights");
  private final Arena parameterArena = new Arena("parameters");
  private final Arena gradientArena = new Arena("gradients of parameters");
  private final List<Parameter> parameters = new ArrayList<>();
  private final List<State> states = new ArrayList<>();
  private final List<LayerRow> layers = new ArrayList<>();
  private final List<Arena> extra = new ArrayList<>();
  private final Map<String, Planner> included = new LinkedHashMap<>();
  private final List<BinaryUnit> binaryUnits = new ArrayList<>();
  private final List<Layer> owned = new ArrayList<>();
  private final StepState step;
  private long workspaceBytes = 64;
  private final List<Copies> copies = new ArrayList<>();
  private final List<WeightCast> weightCasts = new ArrayList<>();
  private final List<GradientCast> gradientCasts = new ArrayList<>();
  private Tensor workspaceTensor;
  private Tensor flatParameters;
  private Tensor flatGradients;

  /**
   * {@code maxImages} is the largest micro-batch; without {@code gradientOrNull} no backward memory
   * is planned. Real values are F32.
   */
  public Planner(Backend backend, int maxImages, Gradient gradientOrNull) {
    this(backend, maxImages, DType.F32, gradientOrNull);
  }

  /**
   * Activations and their gradients are stored as {@code real}, with a loss scale where that is
   * F16; parameters, their gradients and statistics are F32 or more.
   */
  public Planner(Backend backend, int maxImages, DType real, Gradient gradientOrNull) {
    if (maxImages < 1) {
      throw new IllegalArgumentException("the micro-batch must be >= 1 image, got " + maxImages);
    }
    this.backend = backend;
    this.maxImages = maxImages;
    this.real = real;
    this.gradientOrNull = gradientOrNull;
    passBackend = training() ? backend : backend.evaluation(maxImages);
    int lanes = passBackend.lanes();
    this.kept =
        training()
            ? new Arena[] {new Arena("activations")}
            : new Arena[] {
              new Arena("activations (a)", lanes), new Arena("activations (b)", lanes)
            };
    db =
        new Arena(
            training() ? "gradients of convolution inputs" : "scratch of the forward pass", lanes);
    workspace = new Arena("workspace", lanes);
    this.step =
        new StepState(
            persistent.reserve(StepState.SHAPE, StepState.DTYPE),
            persistent.reserve(StepState.SHAPE, StepState.DTYPE),
            real == DType.F16 && gradientOrNull != null
                ? persistent.reserve(StepState.SHAPE, StepState.DTYPE)
                : null);
  }

  public Backend backend() {
    return backend;
  }

  /** On which layers and blocks run: {@link #backend}, or its lanes for evaluation. */
  Backend passBackend() {
    return passBackend;
  }

  public int maxImages() {
    return maxImages;
  }

  /**
   * Images that go through the blocks at a time: all of a micro-batch in training, whose statistics
   * are its own; else what the backend likes ({@link Backend#evaluationImages}).
   */
  int passImages() {
    int lanes = passBackend.lanes();
    return training()
        ? maxImages
        : Math.min((maxImages + lanes - 1) / lanes, passBackend.evaluationImages());
  }

  public boolean training() {
    return gradientOrNull != null;
  }

  /** Type of activations and their gradients. */
  public DType real() {
    return real;
  }

  /** Arithmetic of the binary convolutions' backward passes; null when not training. */
  public Gradient gradientOrNull() {
    return gradientOrNull;
  }

  /** Scalars of the step. */
  public StepState step() {
    return step;
  }

  /** A tensor of the whole micro-batch, outside the blocks. */
  Tensor outside(Shape shape) {
    return images.reserve(shape, real);
  }

  /**
   * A tensor kept from the forward to the backward pass; when not training, until the next block
   * has run.
   */
  public Tensor keep(Shape shape, DType dtype) {
    return kept[keptInUse].reserve(shape, dtype);
  }

  /**
   * Between the planning of two blocks. Without a backward pass a block's tensors take the place of
   * those of the last but one, so that a whole pass lives in memory that the caches hold.
   */
  void nextBlock() {
    if (!training()) {
      keptInUse = 1 - keptInUse;
      kept[keptInUse].reuse();
    }
  }

  /** A small tensor that lives as long as the network; no evaluation pass writes it. */
  public Tensor persist(Shape shape, DType dtype) {
    return persistent.reserve(shape, dtype);
  }

  /**
   * Gradient of an activation; slots 0 and 1 take turns where the shape changes, 2 and 3 are those
   * of a second stream. Null when not training.
   */
  Tensor gradient(Shape shape, int slot) {
    return training() ? gradientSlots[slot].overlay(shape, real) : null;
  }

  /**
   * Gradient of a convolution's output, alive within one block's backward pass. Null when not
   * training.
   */
  Tensor outputGradient(Shape shape) {
    return training() ? dz.overlay(shape, real) : null;
  }

  /**
   * Gradient of a convolution's input, alive within one block's backward pass. Null when not
   * training.
   */
  Tensor inputGradient(Shape shape) {
    return training() ? db.overlay(shape, real) : null;
  }

  /**
   * Gradient of a downsampled input, alive within one block's backward pass. Null when not
   * training.
   */
  Tensor pooledGradient(Shape shape) {
    return training() ? small.overlay(shape, real) : null;
  }

  /** Scratch of the forward pass only: shares the memory of {@link #inputGradient}. */
  Tensor forwardScratch(Shape shape) {
    return db.overlay(shape, real);
  }

  /** Some op will need {@code bytes} of {@link #workspace}. */
  public void needWorkspace(long bytes) {
    workspaceBytes = Math.max(workspaceBytes, bytes);
  }

  /** Shared scratch of all ops; valid after {@link #finish}. */
  public Tensor workspace() {
    return workspaceTensor;
  }

  /** A tensor that is trained; registered in the order of the published state. */
  public Parameter parameter(Parameter parameter) {
    parameters.add(parameter);
    states.add(parameter);
    return parameter;
  }

  /**
   * Makes {@code parameter} fit {@code plan}: copies of the types that its passes read and write,
   * where those are others. With {@code alphaOrNull} the operand is alpha times the signs.
   */
  void fit(Parameter parameter, Plan plan, Tensor alphaOrNull) {
    Tensor operand =
        plan.weightType() == real && real != DType.F32 ? persist(parameter.shape(), real) : null;
    Tensor rounded =
        training() && plan.gradientType() != DType.F32 ? persist(parameter.shape(), real) : null;
    if (operand != null || rounded != null) {
      parameter.copies(operand, rounded);
      copies.add(new Copies(parameter, operand, rounded, alphaOrNull));
    }
  }

  /** Copies of weights, to be renewed after every change of the parameters. */
  List<WeightCast> weightCasts() {
    return weightCasts;
  }

  /** Copies of gradients, to be added up after every backward pass. */
  List<GradientCast> gradientCasts() {
    return gradientCasts;
  }

  /** A tensor that a checkpoint holds but nobody trains. */
  public <S extends State> S state(S state, DType memoryType) {
    state.bind(persist(state.shape(), memoryType));
    states.add(state);
    return state;
  }

  /** Called by a block for each of its binary convolutions. */
  void binaryUnit(BinaryUnit unit) {
    binaryUnits.add(unit);
  }

  List<BinaryUnit> binaryUnits() {
    return List.copyOf(binaryUnits);
  }

  /**
   * Takes the memory of another network, which runs beside this one, together with its own: one
   * row, {@code what}, in the table. The other's owner still closes it.
   */
  public void include(String what, Planner other) {
    included.put(what, other);
  }

  /** From here on the planner closes it, and {@link #owned} lists it. */
  void own(Layer layer) {
    owned.add(layer);
  }

  List<Layer> owned() {
    return owned;
  }

  /** The end of a training step, with {@code trained} runs of the flat buffers. */
  public UpdateSpec updateSpec(List<UpdateSpec.Segment> trained) {
    List<UpdateSpec.BinaryParameter> binary = new ArrayList<>();
    List<UpdateSpec.RunningStatistics> norms = new ArrayList<>();
    for (Layer layer : owned) {
      if (layer.binaryParameter() != null) {
        binary.add(layer.binaryParameter());
      }
      if (layer.runningStatistics() != null) {
        norms.add(layer.runningStatistics());
      }
    }
    binary.sort(Comparator.comparingLong(b -> b.w().offsetBytes()));
    return new UpdateSpec(
        flatParameters, flatGradients, trained, binary, norms, BatchNorm2d.MOMENTUM);
  }

  void layer(LayerRow row) {
    layers.add(row);
  }

  /**
   * Lays the parameters out in one flat buffer, in the order in which backward finishes them (the
   * last layer first), so that a prefix of the gradient buffer is complete early.
   */
  void finish() {
    long count = 0;
    for (Parameter parameter : parameters) {
      count += aligned(parameter.shape().count());
    }
    flatParameters = parameterArena.reserve(Shape.of(count), DType.F32);
    flatGradients = training() ? gradientArena.reserve(Shape.of(count), DType.F32) : null;
    long offset = 0;
    for (int i = parameters.size() - 1; i >= 0; i--) {
      Parameter parameter = parameters.get(i);
      parameter.bind(
          new Tensor(parameterArena, offset * Float.BYTES, parameter.shape(), DType.F32),
          training()
              ? new Tensor(gradientArena, offset * Float.BYTES, parameter.shape(), DType.F32)
              : null);
      offset += aligned(parameter.shape().count());
    }
    for (Copies copy : copies) {
      if (copy.operand() != null) {
        weightCasts.add(
            new WeightCast(copy.operand(), copy.parameter().value(), copy.alphaOrNull()));
      }
      if (copy.rounded() != null) {
        gradientCasts.add(new GradientCast(copy.parameter().gradient(), copy.rounded()));
      }
    }
    if (training()) {
      needWorkspace(backend.finiteNormWorkspaceBytes(count));
    }
    workspaceTensor = workspace.reserve(Shape.of(workspaceBytes), DType.U8);
  }

  private static long aligned(long count) {
    return (count + FLOAT_ALIGNMENT - 1) / FLOAT_ALIGNMENT * FLOAT_ALIGNMENT;
  }

  /** In published order. */
  public List<Parameter> parameters() {
    return List.copyOf(parameters);
  }

  /** Parameters and statistics, in published order. */
  public List<State> states() {
    return List.copyOf(states);
  }

  public List<LayerRow> layers() {
    return List.copyOf(layers);
  }

  /** All parameters, with zeros in the gaps that align them. */
  public Tensor flatParameters() {
    return flatParameters;
  }

  /** Gradients at the offsets of {@link #flatParameters}; null when not training. */
  public Tensor flatGradients() {
    return flatGradients;
  }

  /** A flat buffer like the parameters', e.g. an optimizer moment. */
  public Tensor flatLike(String what) {
    Arena arena = new Arena(what);
    extra.add(arena);
    return arena.reserve(flatParameters.shape(), DType.F32);
  }

  /** The part of a flat buffer that belongs to {@code parameter}. */
  public static Tensor viewLike(Tensor flat, Parameter parameter) {
    return new Tensor(
        flat.buffer(),
        flat.offsetBytes() + parameter.value().offsetBytes(),
        parameter.shape(),
        DType.F32);
  }

  /** Who wants how much, largest first. */
  public List<MemoryRow> memory() {
    List<MemoryRow> rows = new ArrayList<>();
    for (Arena arena : arenas()) {
      if (arena.bytes() > 0) {
        rows.add(new MemoryRow(arena.what(), arena.allBytes()));
      }
    }
    included.forEach((what, other) -> rows.add(new MemoryRow(what, other.memoryBytes())));
    rows.sort((a, b) -> Long.compare(b.bytes(), a.bytes()));
    return rows;
  }

  public long memoryBytes() {
    return memory().stream().mapToLong(MemoryRow::bytes).sum();
  }

  private List<Arena> arenas() {
    List<Arena> arenas = new ArrayList<>(List.of(images));
    arenas.addAll(List.of(kept));
    arenas.addAll(List.of(gradientSlots));
    arenas.addAll(List.of(dz, db, small, workspace, persistent, parameterArena, gradientArena));
    arenas.addAll(extra);
    return arenas;
  }

  /** Throws as {@link #allocate} does, and takes nothing. */
  public void requireFits() {
    long available = backend.availableBytes();
    if (memoryBytes() > available) {
      throw new MemoryException(this, available);
    }
  }

  /**
   * Takes the memory. Throws {@link MemoryException} with the table of who wanted what, before
   * anything is taken, if the backend has less, and if it then refuses a part of it.
   */
  public void allocate() {
    requireFits();
    long available = backend.availableBytes();
    try {
      take();
    } catch (OutOfMemoryError e) {
      throw new MemoryException(this, available, e);
    }
  }

  private void take() {
    for (Arena arena : arenas()) {
      if (arena.bytes() > 0) {
        arena.allocate(backend);
      }
    }
    included.values().forEach(Planner::take);
  }

  /** Layers, then memory. */
  @Override
  public void close() {
    owned.forEach(Layer::close);
    arenas().forEach(Arena::close);
  }
}
