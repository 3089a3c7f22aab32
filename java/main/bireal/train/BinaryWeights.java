package bireal.train;

import bireal.backend.Tensors;
import bireal.nn.BinaryUnit;
import bireal.nn.Network;
import bireal.nn.State;
import bireal.runtime.InputException;
import java.util.HashMap;
import java.util.Map;

/**
 * Constrains the weights of binary convolutions to -1 and +1, the last stage of the Caffe recipe.
 */
public final class BinaryWeights {
  private BinaryWeights() {}

  /**
   * Replaces the weights w of each binary convolution by sign(w), so that their scale alpha is 1.
   * With {@code fold} the batch normalisation behind it takes the scale up, by exact algebra
   * (docs/decisions.md, row 19): with y = gamma (alpha c - mean) / sqrt(var + eps) + beta,
   *
   * <pre>
   *   mean' = mean / alpha,  var' = (var + eps) / alpha^2 - eps
   * </pre>
   *
   * and where alpha is 0 the filter's output is the constant beta - gamma mean / sqrt(var + eps),
   * which becomes beta' with gamma' = 0. So inference is the same function, up to the rounding of
   * mean' and var' to float32.
   *
   * <p>Throws InputException, before anything is changed, with the tensor and the filter, if var'
   * would be negative (alpha &gt; 1 beside a variance below eps), or if there is no batch
   * normalisation behind a binary convolution to fold into.
   */
  public static void constrain(Network network, boolean fold) {
    requirePossible(network, fold);
    Map<String, State> states = new HashMap<>();
    network.planner().states().forEach(state -> states.put(state.name(), state));
    Map<State, float[]> changed = new HashMap<>();
    for (BinaryUnit unit : network.binaryUnits()) {
      State weight = unit.weight();
      float[] signs = network.published(weight);
      for (int i = 0; i < signs.length; i++) {
        signs[i] = signs[i] < 0 ? -1f : 1f;
      }
      changed.put(weight, signs);
      if (fold) {
        fold(network, unit, states, changed);
      }
    }
    changed.forEach(network::setPublished);
    network.refresh();
  }

  /** Throws InputException for what {@link #constrain} refuses whatever the weights are. */
  static void requirePossible(Network network, boolean fold) {
    if (network.binaryUnits().isEmpty()) {
      throw new InputException(
          "the network has no binary convolution whose weights could be constrained to -1 and +1;"
              + " start.binary_weights must be kept here");
    }
    for (BinaryUnit unit : network.binaryUnits()) {
      if (fold && unit.norm() == null) {
        throw new InputException(
            unit.weight().name()
                + ": no batch normalisation follows this convolution directly, so there is nothing"
                + " to fold its scale into");
      }
    }
  }

  private static void fold(
      Network network, BinaryUnit unit, Map<String, State> states, Map<State, float[]> changed) {
    float[] alpha = Tensors.floats(network.planner().backend(), unit.alpha());
    State gammaState = states.get(unit.norm() + ".weight");
    State betaState = states.get(unit.norm() + ".bias");
    State meanState = states.get(unit.norm() + ".running_mean");
    State varState = states.get(unit.norm() + ".running_var");
    float[] gamma = network.published(gammaState);
    float[] beta = network.published(betaState);
    float[] mean = network.published(meanState);
    float[] var = network.published(varState);
    double eps = unit.eps();
    for (int k = 0; k < alpha.length; k++) {
      double spread = var[k] + eps;
      if (alpha[k] == 0) {
        beta[k] = (float) (beta[k] - gamma[k] * mean[k] / Math.sqrt(spread));
        gamma[k] = 0;
        mean[k] = 0;
        var[k] = 1;
        continue;
      }
      double folded = spread / ((double) alpha[k] * alpha[k]) - eps;
      if (!(folded >= 0)) {
        throw new InputException(
            varState.name()
                + "["
                + k
                + "] would become "
                + folded
                + ": the scale of "
                + unit.weight().name()
                + " is "
                + alpha[k]
                + " and its variance "
                + var[k]
                + ", less than eps; such a network cannot be folded, retrain it with"
                + " start.binary_weights: sign");
      }
      mean[k] = (float) (mean[k] / (double) alpha[k]);
      var[k] = (float) folded;
    }
    changed.putAll(Map.of(gammaState, gamma, betaState, beta, meanState, mean, varState, var));
  }
}
