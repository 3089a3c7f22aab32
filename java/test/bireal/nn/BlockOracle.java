package bireal.nn;

import bireal.backend.ActivationGradient;
import bireal.backend.WeightGradient;
import java.util.Arrays;

/**
 * One Bi-Real or ReActNet block in float64, NCHW and OIHW, written from the formulas of networks.md
 * 1A.1 to 1A.3 and 2.1 with plain loops: y = BN(conv(sign(x + move0), alpha sign W)) + shortcut,
 * then RPReLU, and its gradients. Shares no code with the product.
 */
final class BlockOracle {
  private static final double EPS = 1e-5;

  final int n;
  final int inChannels;
  final int outChannels;
  final int side;
  final int outSide;
  private final int stride;
  private final boolean reshapes;

  // Set by the caller.
  double[] x;
  double[] w;
  double[] gamma;
  double[] beta;
  double[] downW;
  double[] downGamma;
  double[] downBeta;
  double[] dy;
  double[] move0; // the four of ReActNet, or null
  double[] move1;
  double[] slope;
  double[] move2;
  boolean realWeights;

  // Results.
  double[] alpha;
  double[] y;
  double[] dx;
  double[] dw;
  double[] dgamma;
  double[] dbeta;
  double[] mean;
  double[] unbiased;
  double[] downDw;
  double[] downDgamma;
  double[] downDbeta;
  double[] downMean;
  double[] downUnbiased;
  double[] dmove0;
  double[] dmove1;
  double[] dslope;
  double[] dmove2;

  BlockOracle(int n, int inChannels, int outChannels, int side, int stride) {
    this.n = n;
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.side = side;
    this.stride = stride;
    this.outSide = side / stride;
    this.reshapes = stride > 1 || inChannels != outChannels;
  }

  /** Batch normalisation of z [n,K,P,P], and what its backward pass needs. */
  private final class Norm {
    final double[] xhat;
    final double[] mean = new double[outChannels];
    final double[] invstd = new double[outChannels];
    final double[] unbiased = new double[outChannels];
    double[] dgamma;
    double[] dbeta;

    Norm(double[] z) {
      xhat = new double[z.length];
      int m = n * outSide * outSide;
      for (int k = 0; k < outChannels; k++) {
        double sum = 0;
        for (int i = 0; i < m; i++) {
          sum += z[at(i, k)];
        }
        mean[k] = sum / m;
        double squares = 0;
        for (int i = 0; i < m; i++) {
          squares += Math.pow(z[at(i, k)] - mean[k], 2);
        }
        unbiased[k] = squares / (m - 1);
        invstd[k] = 1 / Math.sqrt(squares / m + EPS);
        for (int i = 0; i < m; i++) {
          xhat[at(i, k)] = (z[at(i, k)] - mean[k]) * invstd[k];
        }
      }
    }

    /** Place of channel k of pixel i (counted over images) in NCHW. */
    private int at(int i, int k) {
      int area = outSide * outSide;
      return (i / area * outChannels + k) * area + i % area;
    }

    double[] apply(double[] scale, double[] shift) {
      double[] out = new double[xhat.length];
      int m = n * outSide * outSide;
      for (int k = 0; k < outChannels; k++) {
        for (int i = 0; i < m; i++) {
          out[at(i, k)] = scale[k] * xhat[at(i, k)] + shift[k];
        }
      }
      return out;
    }

    double[] backward(double[] upstream, double[] scale) {
      dgamma = new double[outChannels];
      dbeta = new double[outChannels];
      double[] dz = new double[xhat.length];
      int m = n * outSide * outSide;
      for (int k = 0; k < outChannels; k++) {
        for (int i = 0; i < m; i++) {
          dgamma[k] += upstream[at(i, k)] * xhat[at(i, k)];
          dbeta[k] += upstream[at(i, k)];
        }
        for (int i = 0; i < m; i++) {
          int j = at(i, k);
          dz[j] = scale[k] * invstd[k] * (upstream[j] - dbeta[k] / m - xhat[j] * dgamma[k] / m);
        }
      }
      return dz;
    }
  }

  /** Receives (place in x, place in w, place in z) of each term of a convolution. */
  private interface Term {
    void visit(int x, int w, int z);
  }

  /** All terms of a convolution from [n,C,from,from] to [n,K,outSide,outSide]; padding skipped. */
  private void terms(int from, int filter, int step, int pad, Term term) {
    for (int i = 0; i < n; i++) {
      for (int k = 0; k < outChannels; k++) {
        for (int p = 0; p < outSide; p++) {
          for (int q = 0; q < outSide; q++) {
            int z = ((i * outChannels + k) * outSide + p) * outSide + q;
            for (int c = 0; c < inChannels; c++) {
              for (int r = 0; r < filter; r++) {
                for (int s = 0; s < filter; s++) {
                  int h = p * step + r - pad;
                  int v = q * step + s - pad;
                  if (h >= 0 && h < from && v >= 0 && v < from) {
                    term.visit(
                        ((i * inChannels + c) * from + h) * from + v,
                        ((k * inChannels + c) * filter + r) * filter + s,
                        z);
                  }
                }
              }
            }
          }
        }
      }
    }
  }

  void run(ActivationGradient activationGradient, WeightGradient weightGradient) {
    int perFilter = inChannels * 9;
    int outCount = n * outChannels * outSide * outSide;

    // Forward.
    alpha = new double[outChannels];
    for (int i = 0; i < w.length; i++) {
      alpha[i / perFilter] += Math.abs(w[i]) / perFilter;
    }
    double[] u = x.clone();
    if (move0 != null) {
      Arrays.setAll(u, i -> x[i] + move0[i / (side * side) % inChannels]);
    }
    double[] signX = Arrays.stream(u).map(v -> v < 0 ? -1 : 1).toArray();
    double[] binary = new double[w.length];
    for (int i = 0; i < w.length; i++) {
      binary[i] = realWeights ? w[i] : alpha[i / perFilter] * (w[i] < 0 ? -1 : 1);
    }
    double[] z = new double[outCount];
    terms(side, 3, stride, 1, (a, b, o) -> z[o] += signX[a] * binary[b]);
    Norm norm = new Norm(z);
    mean = norm.mean;
    unbiased = norm.unbiased;
    y = norm.apply(gamma, beta);
    double[] pooled = new double[n * inChannels * outSide * outSide];
    Norm downNorm = null;
    if (reshapes) {
      for (int i = 0; i < x.length; i++) {
        pooled[pool(i)] += x[i] / (stride * stride);
      }
      double[] down = new double[outCount];
      terms(outSide, 1, 1, 0, (a, b, o) -> down[o] += pooled[a] * downW[b]);
      downNorm = new Norm(down);
      downMean = downNorm.mean;
      downUnbiased = downNorm.unbiased;
      double[] shortcut = downNorm.apply(downGamma, downBeta);
      Arrays.setAll(y, i -> y[i] + shortcut[i]);
    } else {
      Arrays.setAll(y, i -> y[i] + x[i]);
    }

    double[] dsum = dy.clone();
    if (move0 != null) {
      dmove1 = new double[outChannels];
      dslope = new double[outChannels];
      dmove2 = new double[outChannels];
      for (int i = 0; i < y.length; i++) {
        int k = i / (outSide * outSide) % outChannels;
        double v = y[i] + move1[k];
        y[i] = (v > 0 ? v : slope[k] * v) + move2[k];
        dsum[i] = v > 0 ? dy[i] : slope[k] * dy[i];
        dmove1[k] += dsum[i];
        dslope[k] += v > 0 ? 0 : dy[i] * v;
        dmove2[k] += dy[i];
      }
    }

    // Backward.
    double[] dz = norm.backward(dsum, gamma);
    dgamma = norm.dgamma;
    dbeta = norm.dbeta;
    dw = new double[w.length];
    double[] dsign = new double[x.length];
    terms(
        side,
        3,
        stride,
        1,
        (a, b, o) -> {
          dw[b] += dz[o] * signX[a];
          dsign[a] += dz[o] * binary[b];
        });
    for (int i = 0; i < w.length; i++) {
      double magnitude = Math.abs(w[i]);
      double scale = alpha[i / perFilter];
      dw[i] *=
          realWeights
              ? 1
              : switch (weightGradient) {
                case CLIPPED -> magnitude <= 1 ? 1 : 0;
                case MAGNITUDE_AWARE -> magnitude < 1 ? scale : 0;
                case STRAIGHT_THROUGH -> 1;
                case XNOR -> 1.0 / perFilter + (magnitude <= 1 ? scale : 0);
              };
    }
    dx = new double[x.length];
    if (downNorm != null) {
      double[] ddown = downNorm.backward(dsum, downGamma);
      downDgamma = downNorm.dgamma;
      downDbeta = downNorm.dbeta;
      downDw = new double[downW.length];
      double[] dpooled = new double[pooled.length];
      terms(
          outSide,
          1,
          1,
          0,
          (a, b, o) -> {
            downDw[b] += ddown[o] * pooled[a];
            dpooled[a] += ddown[o] * downW[b];
          });
      Arrays.setAll(dx, i -> dpooled[pool(i)] / (stride * stride));
    } else {
      dx = dsum.clone();
    }
    dmove0 = new double[inChannels];
    for (int i = 0; i < x.length; i++) {
      double magnitude = Math.abs(u[i]);
      double part =
          dsign[i]
              * switch (activationGradient) {
                case APPROX_SIGN -> magnitude < 1 ? 2 - 2 * magnitude : 0;
                case CLIPPED_IDENTITY -> magnitude <= 1 ? 1 : 0;
              };
      dx[i] += part;
      dmove0[i / (side * side) % inChannels] += part;
    }
  }

  /** The pooled element that element {@code i} of x goes into. */
  private int pool(int i) {
    int v = i % side;
    int h = i / side % side;
    int plane = i / (side * side);
    return (plane * outSide + h / stride) * outSide + v / stride;
  }
}
