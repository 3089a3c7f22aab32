package bireal.train;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.optim.OptimizerConfig;
import bireal.runtime.InputException;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A reference case: a small network trained for a few steps in float64 by an independent
 * implementation, every input being a function of (seed, name, index). {@link #run} rebuilds it on
 * a backend and compares. The format, the formulas and the tolerances are those of
 * java/test-resources/golden/README.md.
 */
public final class ReferenceCase {
  /**
   * One compared figure. {@code judged} is false where the case says that it is only to be shown.
   */
  public record Row(
      String what, double expected, double got, double difference, double allowed, boolean judged) {
    public boolean passed() {
      return !judged || difference <= allowed; // a NaN difference fails
    }
  }

  /** All rows of a case; {@code looseGradients} are those that used the one-in-twenty allowance. */
  public record Report(String name, List<Row> rows, int looseGradients, int allowedLooseGradients) {
    public boolean passed() {
      return looseGradients <= allowedLooseGradients && rows.stream().allMatch(Row::passed);
    }
  }

  /** The published cases have 50 to 150 KB. */
  private static final long MAX_BYTES = 64L << 20;

  // Bounds of what a case may ask for: such a network still fits any machine.
  private static final int MAX_BATCH = 1024;
  private static final int MAX_STEPS = 1000;
  private static final int MAX_SIDE = 4096;
  private static final Set<String> MODEL_KEYS =
      Set.of(
          "arch",
          "depth",
          "width",
          "classes",
          "stem",
          "input",
          "weight_gradient",
          "binary_weights",
          "activation");
  private static final Set<String> SPEC_KEYS =
      Set.of(
          "name",
          "precision",
          "model",
          "seed",
          "batch",
          "label_smoothing",
          "optimizer",
          "steps",
          "distill");
  private static final long PROBE_SEED = 7;
  private static final double TOLERANCE = 1e-3;
  private static final double LOOSE_GRADIENT = 5e-2;
  private static final double MARGIN = 2e-6;
  private static final double EVALUATION_MARGIN = 1e-6;

  private final String name;
  private final JsonNode file;
  private final JsonNode spec;
  private final NetworkConfig network;
  private final OptimizerConfig optimizer;
  private final Shape image;
  private final long seed;
  private final int batch;
  private final int steps;
  private final double labelSmoothing;
  private final boolean distill;

  private ReferenceCase(String name, JsonNode file) {
    this.name = name;
    this.file = file;
    this.spec = object(file, "spec");
    JsonNode model = object(spec, "model");
    this.network = network(model);
    known(spec, SPEC_KEYS, "spec");
    known(model, MODEL_KEYS, "spec.model");
    this.seed = integer(spec, "seed", null, Long.MIN_VALUE, Long.MAX_VALUE);
    this.batch = (int) integer(spec, "batch", null, 1, MAX_BATCH);
    this.steps = (int) integer(spec, "steps", null, 1, MAX_STEPS);
    if (file.path("steps").size() != steps) {
      throw error("spec.steps is " + steps + ", but 'steps' has " + file.path("steps").size());
    }
    this.labelSmoothing = number(spec, "label_smoothing", 0.0);
    this.distill = flag(spec, "distill");
    JsonNode input = model.get("input");
    boolean shape = input != null && input.isArray() && input.size() == 3;
    for (int i = 0; shape && i < 3; i++) {
      JsonNode size = input.get(i);
      shape = size.isInt() && size.intValue() >= 1 && size.intValue() <= MAX_SIDE;
    }
    if (!shape) {
      throw error(
          "spec.model.input must be [C, H, W], each in 1.." + MAX_SIDE + ", got " + shown(input));
    }
    this.image =
        Shape.of(input.get(1).intValue(), input.get(2).intValue(), input.get(0).intValue());
    this.optimizer = optimizer(object(spec, "optimizer"));
  }

  /** Reads a case. Throws InputException naming file and key if it is not one. */
  public static ReferenceCase load(Path path) {
    try {
      if (Files.exists(path) && !Files.isRegularFile(path)) { // a pipe would block
        throw new InputException(path + ": not a regular file; name a reference case");
      }
      long bytes = Files.size(path);
      if (bytes > MAX_BYTES) {
        throw new InputException(
            path + ": " + bytes + " bytes, a reference case has at most " + MAX_BYTES);
      }
      return new ReferenceCase(path.toString(), StrictJson.parseObject(Files.readAllBytes(path)));
    } catch (NoSuchFileException e) {
      throw new InputException(path + ": no such file; correct the path", e);
    } catch (IOException e) {
      throw new InputException(path + ": not a readable reference case: " + e.getMessage(), e);
    } catch (IllegalArgumentException e) {
      throw new InputException(path + ": " + e.getMessage(), e);
    }
  }

  public String name() {
    return spec.path("name").asText(name);
  }

  private NetworkConfig network(JsonNode model) {
    NetworkConfig.Family family =
        choice(NetworkConfig.Family.class, text(model, "arch", null), "spec.model.arch");
    boolean xnor = family == NetworkConfig.Family.XNORNET;
    NetworkConfig.Weights weights = NetworkConfig.Weights.AUTO;
    if (model.has("binary_weights")) {
      weights =
          flag(model, "binary_weights") ? NetworkConfig.Weights.BINARY : NetworkConfig.Weights.REAL;
    }
    return new NetworkConfig(
        family,
        (int) integer(model, "depth", 18L, 1, Integer.MAX_VALUE),
        (int) integer(model, "width", 64L, 1, Integer.MAX_VALUE),
        (int) integer(model, "classes", 1000L, 1, Integer.MAX_VALUE),
        choice(NetworkConfig.Stem.class, text(model, "stem", "imagenet"), "spec.model.stem"),
        weights,
        choice(
            NetworkConfig.Nonlinearity.class,
            text(model, "activation", "auto"),
            "spec.model.activation"),
        choice(
            WeightGradient.class,
            text(model, "weight_gradient", xnor ? "xnor" : "clipped"),
            "spec.model.weight_gradient"),
        xnor ? ActivationGradient.CLIPPED_IDENTITY : ActivationGradient.APPROX_SIGN,
        NetworkConfig.Init.KAIMING);
  }

  private OptimizerConfig optimizer(JsonNode node) {
    known(node, Set.of("type", "lr", "momentum", "weight_decay"), "spec.optimizer");
    return new OptimizerConfig(
        choice(OptimizerConfig.Type.class, text(node, "type", null), "spec.optimizer.type"),
        number(node, "lr", null),
        batch,
        0.9,
        0.999,
        1e-8,
        number(node, "momentum", 0.0),
        SgdForm.PYTORCH,
        number(node, "weight_decay", 0.0),
        OptimizerConfig.Decayed.ALL);
  }

  /** Rebuilds the case on {@code backend} and compares every figure of the file. */
  public Report run(Backend backend) {
    List<Row> rows = new ArrayList<>();
    try (Network net = new Network(network, image, new Planner(backend, batch, Gradient.FP32));
        TrainStep step = new TrainStep(net, optimizer, labelSmoothing, distill)) {
      net.allocate();
      net.initialize(0);
      compareParameters(net);
      for (Parameter parameter : net.planner().parameters()) {
        net.setPublished(parameter, initial(parameter));
      }
      net.refresh();
      Gradients gradients = null;
      boolean decided = true; // no sign of this or an earlier step was too close to call
      for (int k = 0; k < steps; k++) {
        JsonNode expected = file.path("steps").path(k);
        step.begin(k + 1, optimizer.lr());
        fillInput(backend, net, "input/" + k);
        fillLabels(backend, net.labels(), k);
        if (distill) {
          fillTeacher(backend, step.teacherLogits(), k);
        }
        step.microBatch(batch, batch);
        if (k == 0) {
          compareForward(rows, backend, net, expected);
          gradients = compareGradients(rows, net, expected.path("gradients"));
        }
        step.finish();
        decided &= margin(expected, "steps[" + k + "]") >= MARGIN;
        double relative = k == 0 ? 1e-5 : k == 1 ? 2e-3 : 2e-2;
        compareScalar(
            rows,
            "step " + k + " loss",
            figure(expected, "loss", "steps[" + k + "]"),
            step.metrics().loss(),
            relative,
            k == 0 || decided);
        if (k == 0) {
          compareAfterStep(rows, net, expected);
          compareEvaluation(rows, backend, net);
        }
      }
      return new Report(
          name(),
          rows,
          gradients == null ? 0 : gradients.loose,
          gradients == null ? 0 : gradients.count / 20);
    }
  }

  private void compareParameters(Network net) {
    JsonNode expected = file.path("parameters");
    List<String> missing = new ArrayList<>();
    expected.fieldNames().forEachRemaining(missing::add);
    for (Parameter parameter : net.planner().parameters()) {
      JsonNode dims = expected.get(parameter.name());
      if (dims == null) {
        throw error(
            "the network has a parameter " + parameter.name() + " that the case does not list");
      }
      long[] own = parameter.publishedDims();
      boolean same = dims.size() == own.length;
      for (int i = 0; same && i < own.length; i++) {
        same = dims.get(i).canConvertToLong() && dims.get(i).longValue() == own[i];
      }
      if (!same) {
        throw error(
            "parameter "
                + parameter.name()
                + " has shape "
                + java.util.Arrays.toString(own)
                + ", the case says "
                + shown(dims));
      }
      missing.remove(parameter.name());
    }
    if (!missing.isEmpty()) {
      throw error(
          "the case lists parameters that the network lacks: "
              + CheckpointException.quote(missing.toString()));
    }
  }

  private float[] initial(Parameter parameter) {
    String key = parameter.name();
    long[] dims = parameter.publishedDims();
    long stream = Rng.state(seed, key);
    float[] values = new float[(int) parameter.shape().count()];
    double fanIn = 1;
    for (int i = 1; i < dims.length; i++) {
      fanIn *= dims[i];
    }
    // The twin's weights are those of the binary network.
    boolean binary = parameter.binary() || key.endsWith("binary_conv.weights");
    for (int i = 0; i < values.length; i++) {
      double u = Rng.uniform(stream, i);
      if (binary) {
        double w = 1.25 * (2 * u - 1);
        values[i] = (float) (Math.abs(w) < 1e-4 ? 1e-4 : w);
      } else if (key.endsWith(".prelu.weight")) {
        values[i] = (float) (0.5 * u);
      } else if (dims.length == 1 && key.endsWith(".weight")) {
        values[i] = (float) (0.5 + u);
      } else if (key.endsWith(".bias")) {
        values[i] = (float) (0.2 * (2 * u - 1));
      } else {
        values[i] = (float) ((2 * u - 1) * Math.sqrt(3 / fanIn));
      }
    }
    return values;
  }

  /** 4u - 2, NCHW order, into the NHWC input. */
  private void fillInput(Backend backend, Network net, String stream) {
    long state = Rng.state(seed, stream);
    int H = (int) image.dim(0);
    int W = (int) image.dim(1);
    int C = (int) image.dim(2);
    float[] nhwc = new float[(int) (batch * image.count())];
    for (int n = 0; n < batch; n++) {
      for (int c = 0; c < C; c++) {
        for (int hw = 0; hw < H * W; hw++) {
          long published = ((long) n * C + c) * H * W + hw;
          nhwc[(n * H * W + hw) * C + c] = (float) (4 * Rng.uniform(state, published) - 2);
        }
      }
    }
    Tensors.write(backend, net.input(), nhwc);
  }

  private void fillLabels(Backend backend, Tensor labels, int k) {
    long state = Rng.state(seed, "label/" + k);
    ByteBuffer bytes = Tensors.buffer(labels);
    for (int n = 0; n < batch; n++) {
      bytes.putInt((int) Math.floor(Rng.uniform(state, n) * network.classes()));
    }
    backend.write(labels, bytes.flip());
  }

  /** 1.5 (4u - 2). */
  private void fillTeacher(Backend backend, Tensor logits, int k) {
    long state = Rng.state(seed, "teacher/" + k);
    float[] values = new float[batch * network.classes()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (1.5 * (4 * Rng.uniform(state, i) - 2));
    }
    Tensors.write(backend, logits, values);
  }

  private void compareForward(List<Row> rows, Backend backend, Network net, JsonNode expected) {
    compareLogits(rows, "step 0 logits", backend, net, expected.path("logits"), TOLERANCE, true);
    for (Map.Entry<String, JsonNode> entry : expected.path("activations").properties()) {
      Tensor tensor = net.landmarks().get(entry.getKey());
      if (tensor == null) {
        throw error(
            "the case names an activation that the network lacks: "
                + CheckpointException.quote(entry.getKey()));
      }
      compareTensor(
          rows,
          "activation " + entry.getKey(),
          entry.getKey(),
          toNchw(backend, tensor),
          entry.getValue(),
          TOLERANCE,
          true);
    }
  }

  private void compareLogits(
      List<Row> rows,
      String what,
      Backend backend,
      Network net,
      JsonNode expected,
      double allowed,
      boolean judged) {
    float[] logits = Tensors.floats(backend, net.logits());
    int classes = (int) net.logits().shape().dim(1);
    // A case holds the first images and classes only.
    int rowCount = expected.size();
    if (rowCount < 1 || rowCount > batch) {
      throw error(what + ": the case has " + rowCount + " rows, expected 1.." + batch);
    }
    double worst = -1;
    Row row = null;
    for (int n = 0; n < rowCount; n++) {
      int valueCount = expected.path(n).size();
      if (valueCount < 1 || valueCount > classes) {
        throw error(what + ": row " + n + " has " + valueCount + " values, expected 1.." + classes);
      }
      for (int k = 0; k < valueCount; k++) {
        double e = number(expected.get(n).get(k), what);
        double g = logits[n * classes + k];
        double difference = Math.abs(g - e);
        if (!(difference <= worst)) { // also picks a NaN
          worst = difference;
          row = new Row(what + " (worst)", e, g, difference, allowed, judged);
        }
      }
    }
    rows.add(row);
  }

  private record Gradients(int count, int loose) {}

  private Gradients compareGradients(List<Row> rows, Network net, JsonNode expected) {
    double largest = 0;
    for (Map.Entry<String, JsonNode> entry : expected.properties()) {
      largest = Math.max(largest, figure(entry.getValue(), "norm", "gradient " + entry.getKey()));
    }
    int loose = 0;
    for (Parameter parameter : net.planner().parameters()) {
      String key = parameter.name();
      JsonNode node = expected.get(key);
      float[] got = net.publishedGradient(parameter);
      if (node == null) { // no gradient there, so none here
        rows.add(new Row("gradient " + key + " norm (none)", 0, norm(got), norm(got), 0, true));
        continue;
      }
      double expectedNorm = figure(node, "norm", "gradient " + key);
      if (expectedNorm < 1e-6 * largest) {
        rows.add(
            new Row(
                "gradient " + key + " norm (tiny)",
                expectedNorm,
                norm(got),
                norm(got),
                1e-6 * largest,
                true));
        continue;
      }
      List<Row> own = new ArrayList<>();
      compareTensor(own, "gradient " + key, key, got, node, TOLERANCE, true);
      if (!own.stream().allMatch(Row::passed)) {
        // An element on the edge of a clip goes the other way in float32: one tensor in twenty may.
        loose++;
        own.clear();
        compareTensor(own, "gradient " + key + " (loose)", key, got, node, LOOSE_GRADIENT, true);
      }
      rows.addAll(own);
    }
    return new Gradients(expected.size(), loose);
  }

  private void compareAfterStep(List<Row> rows, Network net, JsonNode expected) {
    for (State state : net.planner().states()) {
      boolean trained = state instanceof Parameter;
      if (!trained && state.dtype() != DType.F32) {
        continue; // the counter of batches is no figure of the case
      }
      JsonNode node = expected.path(trained ? "parameters_after" : "running").get(state.name());
      if (node == null) {
        throw error("the case has no figure after step 0 for " + state.name());
      }
      compareTensor(
          rows,
          (trained ? "after step 0 " : "running ") + state.name(),
          state.name(),
          net.published(state),
          node,
          TOLERANCE,
          true);
    }
  }

  /**
   * Inference with the initial parameters and the running statistics after step 0; then the trained
   * parameters come back.
   */
  private void compareEvaluation(List<Row> rows, Backend backend, Network net) {
    JsonNode expected = file.path("evaluation");
    if (expected.isMissingNode()) {
      return;
    }
    float[] trained = Tensors.floats(backend, net.planner().flatParameters());
    for (Parameter parameter : net.planner().parameters()) {
      net.setPublished(parameter, initial(parameter));
    }
    net.refresh();
    fillInput(backend, net, "input/eval");
    net.forward(batch, Pass.EVALUATE);
    double largest = 0;
    for (JsonNode row : expected.path("logits")) {
      for (JsonNode value : row) {
        largest = Math.max(largest, Math.abs(number(value, "evaluation logits")));
      }
    }
    boolean judged = margin(expected, "evaluation") >= EVALUATION_MARGIN;
    compareLogits(
        rows,
        "evaluation logits",
        backend,
        net,
        expected.path("logits"),
        Math.max(1e-3, 1e-3 * largest),
        judged);
    Tensors.write(backend, net.planner().flatParameters(), trained);
    net.refresh();
  }

  private static void compareScalar(
      List<Row> rows, String what, double expected, double got, double relative, boolean judged) {
    rows.add(
        new Row(
            what, expected, got, Math.abs(got - expected), relative * Math.abs(expected), judged));
  }

  /** Norm, relative to itself, and probe, relative to the norm. */
  private void compareTensor(
      List<Row> rows,
      String what,
      String key,
      float[] got,
      JsonNode expected,
      double relative,
      boolean judged) {
    double norm = figure(expected, "norm", what);
    double probe = figure(expected, "probe", what);
    long stream = Rng.state(PROBE_SEED, "probe/" + key);
    double gotProbe = 0;
    for (int i = 0; i < got.length; i++) {
      gotProbe += got[i] * (2 * Rng.uniform(stream, i) - 1);
    }
    rows.add(
        new Row(
            what + " norm", norm, norm(got), Math.abs(norm(got) - norm), relative * norm, judged));
    rows.add(
        new Row(
            what + " probe", probe, gotProbe, Math.abs(gotProbe - probe), relative * norm, judged));
  }

  private static double norm(float[] values) {
    double sum = 0;
    for (float value : values) {
      sum += (double) value * value;
    }
    return Math.sqrt(sum);
  }

  private static float[] toNchw(Backend backend, Tensor tensor) {
    float[] nhwc = Tensors.floats(backend, tensor);
    if (tensor.shape().rank() != 4) {
      return nhwc;
    }
    int N = (int) tensor.shape().dim(0);
    int C = (int) tensor.shape().dim(3);
    int HW = (int) (tensor.shape().dim(1) * tensor.shape().dim(2));
    float[] nchw = new float[nhwc.length];
    for (int n = 0; n < N; n++) {
      for (int hw = 0; hw < HW; hw++) {
        for (int c = 0; c < C; c++) {
          nchw[(n * C + c) * HW + hw] = nhwc[(n * HW + hw) * C + c];
        }
      }
    }
    return nchw;
  }

  // Reading the spec.

  private InputException error(String message) {
    return new InputException(name + ": " + message);
  }

  private void known(JsonNode node, Set<String> keys, String place) {
    for (Iterator<String> it = node.fieldNames(); it.hasNext(); ) {
      String key = it.next();
      if (!keys.contains(key)) {
        throw error(
            "unknown key "
                + CheckpointException.quote(place + "." + key)
                + "; known are "
                + new java.util.TreeSet<>(keys));
      }
    }
  }

  private JsonNode object(JsonNode node, String key) {
    JsonNode value = node.get(key);
    if (value == null || !value.isObject()) {
      throw error("key '" + key + "' must be an object, got " + shown(value));
    }
    return value;
  }

  private String text(JsonNode node, String key, String fallback) {
    JsonNode value = node.get(key);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value == null || !value.isTextual()) {
      throw error("key '" + key + "' must be a string, got " + shown(value));
    }
    return value.asText();
  }

  private long integer(JsonNode node, String key, Long fallback, long least, long most) {
    JsonNode value = node.get(key);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value == null
        || !value.isIntegralNumber()
        || !value.canConvertToLong()
        || value.longValue() < least
        || value.longValue() > most) {
      throw error(
          "key '"
              + key
              + "' must be an integer in "
              + least
              + ".."
              + most
              + ", got "
              + shown(value));
    }
    return value.longValue();
  }

  private static String shown(JsonNode value) {
    return value == null ? "nothing" : CheckpointException.quote(value.toString());
  }

  private double number(JsonNode node, String key, Double fallback) {
    JsonNode value = node.get(key);
    if (value == null && fallback != null) {
      return fallback;
    }
    if (value == null || !value.isNumber()) {
      throw error("key '" + key + "' must be a number, got " + shown(value));
    }
    return value.asDouble();
  }

  /** A figure to compare with: absent is an error, or it would be compared with 0. */
  private double figure(JsonNode node, String key, String place) {
    return number(node.path(key), place + " " + key);
  }

  private double number(JsonNode value, String place) {
    if (!value.isNumber()) {
      throw error(place + ": expected a number, got " + shown(value));
    }
    return value.doubleValue();
  }

  /** How close the nearest sign was to the other one; null is no signs at all. */
  private double margin(JsonNode node, String place) {
    return node.path("margin").isNull() ? Double.POSITIVE_INFINITY : figure(node, "margin", place);
  }

  private boolean flag(JsonNode node, String key) {
    JsonNode value = node.get(key);
    if (value != null && !value.isBoolean()) {
      throw error("key '" + key + "' must be true or false, got " + shown(value));
    }
    return value != null && value.asBoolean();
  }

  private <E extends Enum<E>> E choice(Class<E> type, String text, String place) {
    for (E value : type.getEnumConstants()) {
      if (value.name().toLowerCase(java.util.Locale.ROOT).equals(text)) {
        return value;
      }
    }
    throw error(
        place
            + ": "
            + CheckpointException.quote(text)
            + " is not one of "
            + java.util.Arrays.toString(type.getEnumConstants())
                .toLowerCase(java.util.Locale.ROOT));
  }
}
