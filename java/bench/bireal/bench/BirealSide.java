package bireal.bench;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.Profile;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.optim.OptimizerConfig;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.train.NamedTensor;
import bireal.train.Safetensors;
import bireal.train.TrainStep;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Our side. Arguments: train|eval|profile, case, threads, runs; or check, case, threads, weights
 * file, results file: writes both for {@link LibtorchSide}. profile: train, with the time of a step
 * by op.
 */
final class BirealSide {
  private BirealSide() {}

  public static void main(String[] args) throws Exception {
    Case full = Case.of(args[1]);
    Case c = args[0].equals("check") ? full.small() : full;
    boolean eval = args[0].equals("eval");
    NetworkConfig config =
        new NetworkConfig(
            NetworkConfig.Family.BIREALNET,
            18,
            c.width(),
            c.classes(),
            c.imagenetStem() ? NetworkConfig.Stem.IMAGENET : NetworkConfig.Stem.CIFAR,
            NetworkConfig.Weights.BINARY,
            NetworkConfig.Nonlinearity.SIGN,
            WeightGradient.CLIPPED,
            ActivationGradient.APPROX_SIGN,
            NetworkConfig.Init.KAIMING);
    OptimizerConfig adam =
        new OptimizerConfig(
            OptimizerConfig.Type.ADAM,
            Case.LEARNING_RATE,
            c.batch(),
            0.9,
            0.999,
            1e-8,
            0,
            SgdForm.PYTORCH,
            0,
            OptimizerConfig.Decayed.ALL);
    Profile profile = args[0].equals("profile") ? new Profile() : null;
    try (Backend opened = CpuBackend.open(Integer.parseInt(args[2]));
        Network network =
            new Network(
                config,
                Shape.of(c.side(), c.side(), c.channels()),
                new Planner(
                    profile == null ? opened : profile.wrap(opened),
                    c.batch(),
                    eval ? null : Gradient.FIXED16));
        TrainStep step = eval ? null : new TrainStep(network, adam, 0, false)) {
      Backend backend = network.planner().backend();
      network.allocate();
      network.initialize(0);
      network.refresh();
      Tensors.write(backend, network.input(), c.images());
      ByteBuffer labels = ByteBuffer.allocateDirect(4 * c.batch()).order(ByteOrder.LITTLE_ENDIAN);
      for (int label : c.labels()) {
        labels.putInt(label);
      }
      backend.write(network.labels(), labels.flip());
      if (args[0].equals("check")) {
        check(c, backend, network, step, Path.of(args[3]), Path.of(args[4]));
        return;
      }
      long[] number = {0};
      double seconds =
          Case.median(
              Integer.parseInt(args[3]),
              () -> {
                if (eval) {
                  network.forward(c.batch(), Pass.EVALUATE);
                } else {
                  step.begin(++number[0], Case.LEARNING_RATE);
                  step.lastMicroBatch(c.batch(), c.batch());
                  step.finish();
                }
              });
      if (profile != null) {
        for (Profile.Row row : profile.rows()) {
          System.out.printf(
              Locale.ROOT,
              "%-28s %5d calls %9.2f ms%n",
              row.op(),
              row.calls() / number[0],
              row.totalMs() / number[0]);
        }
      }
      c.report(seconds, backend.description());
    }
  }

  /** After a few steps, so that statistics and weights are not those of the start. */
  private static void check(
      Case c, Backend backend, Network network, TrainStep step, Path weights, Path results)
      throws IOException {
    int number = 1;
    for (; number <= 3; number++) {
      step.begin(number, Case.LEARNING_RATE);
      step.lastMicroBatch(c.batch(), c.batch());
      step.finish();
    }
    List<NamedTensor> model = new ArrayList<>();
    for (State state : network.planner().states()) {
      model.add(
          state.dtype() == DType.I64
              ? NamedTensor.ofLongs(state.name(), state.publishedDims(), number - 1)
              : NamedTensor.ofFloats(
                  state.name(), state.publishedDims(), network.published(state)));
    }
    Safetensors.write(weights, model, Map.of());
    List<NamedTensor> made = new ArrayList<>();
    network.forward(c.batch(), Pass.EVALUATE);
    made.add(logits(c, "evaluation", backend, network));
    step.begin(number, Case.LEARNING_RATE);
    step.lastMicroBatch(c.batch(), c.batch());
    made.add(logits(c, "training", backend, network));
    for (Parameter parameter : network.planner().parameters()) {
      if (Case.COMPARED_GRADIENTS.contains(parameter.name())) {
        made.add(
            NamedTensor.ofFloats(
                parameter.name(), parameter.publishedDims(), network.publishedGradient(parameter)));
      }
    }
    Safetensors.write(results, made, Map.of());
  }

  private static NamedTensor logits(Case c, String name, Backend backend, Network network) {
    return NamedTensor.ofFloats(
        name, new long[] {c.batch(), c.classes()}, Tensors.floats(backend, network.logits()));
  }
}
