package bireal.backend;

import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.function.IntConsumer;

/**
 * What a device must be able to do: memory, and the ops of native/ops, whose headers are the
 * specification of every method here (formula, shapes, order, aliasing). Outputs come first. {@code
 * n} is the number of images of this run; tensors are planned for the largest batch, so their first
 * n images are used. "or null" arguments may be null.
 *
 * <p>Calls check device, element type, shape and open state, then run; they throw
 * IllegalArgumentException for a wrong shape, IllegalStateException for a closed buffer and {@link
 * bireal.runtime.DeviceException} if the device fails. One thread at a time, but for {@link
 * #passes}. Owned by whoever opened it; close() frees what it still holds.
 */
public interface Backend extends AutoCloseable {
  /** For people and logs, e.g. {@code cpu (avx512, 2 threads)}. */
  String description();

  /** Bytes that can still be allocated, as far as the system tells. */
  long availableBytes();

  /**
   * The backend on which to plan a network that evaluates up to {@code maxImages} images at a time:
   * this one, or one on the same memory, closed with this one, whose ops run on the calling thread
   * alone, so that {@link #lanes} passes run side by side.
   */
  Backend evaluation(int maxImages);

  /** How many passes of an evaluation run side by side ({@link #passes}). */
  int lanes();

  /**
   * How many images an evaluation pass takes through a network at a time. Does not change a bit of
   * any image's result.
   */
  int evaluationImages();

  /**
   * Calls {@code pass} with 0 to {@code count} - 1; see {@link Lanes#run}. Passes write what lies
   * in arenas of {@link #lanes} lanes, and else nothing that another one reads or writes.
   */
  void passes(int count, IntConsumer pass);

  /**
   * Zero-filled memory, 64-byte aligned. Throws OutOfMemoryError naming {@code what} and the bytes.
   */
  Buffer allocate(long bytes, String what);

  /**
   * Copies the whole of {@code source} (little-endian, direct or heap) to the start of {@code
   * target}.
   */
  void write(Tensor target, ByteBuffer source);

  /** Fills {@code target} with the first bytes of {@code source}. */
  void read(ByteBuffer target, Tensor source);

  /** Sets every byte to 0. */
  void zero(Tensor target);

  /** Same element type and count. */
  void copy(Tensor target, Tensor source);

  // Input that comes while other work goes on

  /**
   * As {@link #write}, but on a GPU the bytes travel beside the work that is queued. {@code target}
   * may be read by what is queued before {@link #releaseUploads}, and by what is queued after the
   * next {@link #awaitUploads}, by nothing else.
   */
  void upload(Tensor target, ByteBuffer source);

  /** Work that is queued from here on sees all that was uploaded. */
  void awaitUploads();

  /** Uploads that are asked for from here on wait for the work that is queued so far. */
  void releaseUploads();

  // Work that repeats

  /**
   * Runs {@code work}. For equal {@code work} and {@code key} it must always call the same ops with
   * the same arguments and nothing else: a GPU records them once and replays them from then on.
   * {@code work} must not read, write, upload, allocate or plan.
   */
  void replay(Runnable work, long key);

  /** Forgets what was recorded of {@code work}; before its tensors are freed. */
  void forget(Runnable work);

  /** Whether real activations and their gradients may have this type; F32 always. */
  boolean stores(DType real);

  /**
   * {@code real} is the type of dz and dx. Without {@code gradientOrNull} the plan has no backward
   * passes.
   */
  Plan.BinaryConv planBinaryConv(
      Conv2dSpec spec, int maxImages, DType real, Gradient gradientOrNull);

  /** {@code real} is the type of x, y and their gradients. */
  Plan.Conv2d planConv2d(Conv2dSpec spec, int maxImages, DType real);

  /** {@code real} is the type of x, y and their gradients. */
  Plan.Linear planLinear(int C, int K, int maxImages, DType real);

  /**
   * Takes no memory of the tensors of {@code spec}, which may be unallocated still; throws
   * IllegalArgumentException for segments or tensors that do not fit.
   */
  Update planUpdate(UpdateSpec spec);

  // cast

  /** All in one launch; none is nothing. */
  void castWeights(List<WeightCast> casts);

  /** Each {@code gradient} = or += the rounded one, by {@code mode}; all in one launch. */
  void castGradients(List<GradientCast> casts, GradMode mode);

  // sign_pack, weight_binarize

  void signPackFwd(int n, Tensor bits, Tensor x, Tensor thresholdOrNull);

  /** x is -1 where a bit is set, else +1. */
  void signUnpackFwd(int n, Tensor x, Tensor bits);

  /** w [K,R,S,C] to bits [K,R,S,C] and alpha [K]. */
  void weightBinarizeFwd(Tensor bits, Tensor alpha, Tensor w);

  /** Applies the rule to dw in place; of a training step, {@link #finiteNorm} does that. */
  void weightGradient(Tensor dw, Tensor w, Tensor alpha, WeightGradient rule);

  // binary_conv

  void binaryConvPrepare(Plan.BinaryConv plan, Tensor prepared, Tensor wBits);

  /** v [n,P,Q,K] of the plan's value type; sums [2,K] I64 or null. */
  void binaryConvFwd(
      Plan.BinaryConv plan,
      int n,
      Tensor v,
      Tensor sumsOrNull,
      Tensor xBits,
      Tensor prepared,
      Tensor workspace);

  /**
   * {@link #binaryConvFwd} and {@link #batchNormApply} of its v, with the same results: y and signs
   * of the normalised convolution with shortcut and so on. With {@code normOrNull} the
   * convolution's sums are put into its sums first. {@code vOrNull} is written; without {@code
   * normOrNull} it may be null where the plan {@link Plan.BinaryConv#fusesBatchNorm}.
   */
  void binaryConvBatchNormFwd(
      Plan.BinaryConv plan,
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor vOrNull,
      Tensor xBits,
      Tensor prepared,
      Tensor affine,
      BatchNormStatistics normOrNull,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull,
      Tensor workspace);

  /** {@code w} is of the plan's {@link Plan.BinaryConv#weightType}. */
  void binaryConvBwdInput(
      Plan.BinaryConv plan, int n, Tensor dx, Tensor dz, Tensor alpha, Tensor w, Tensor workspace);

  void binaryConvBwdWeight(
      Plan.BinaryConv plan,
      int n,
      Tensor dw,
      Tensor xBits,
      Tensor dz,
      GradMode mode,
      Tensor workspace);

  // approx_sign

  /** Where a threshold's gradient or sums are wanted; {@code rows} = n*H*W. */
  long approxSignWorkspaceBytes(long rows, int C);

  /**
   * {@code mode} is that of the threshold's gradient. The shortcut's gradient is like x, or pooled,
   * [n,H/2,W/2,C], where the shortcut begins with an average pool of 2x2. With {@code sumsOrNull}
   * also what {@link #batchNormBwdSums} makes of dx and {@code vOrNull}, the input of the
   * normalisation in front; with {@code secondSumsOrNull} the same of {@code secondVOrNull}, the
   * real input of the shortcut's normalisation that was added there.
   */
  void approxSignBwd(
      int n,
      Tensor dx,
      Tensor dthresholdOrNull,
      Tensor sumsOrNull,
      Tensor db,
      Tensor x,
      Tensor thresholdOrNull,
      Tensor shortcutOrNull,
      Tensor vOrNull,
      Tensor secondSumsOrNull,
      Tensor secondVOrNull,
      ActivationGradient kind,
      GradMode mode,
      Tensor workspace);

  // batch_norm; v is real, I16 or I32; rows = n*H*W

  /**
   * Sums over the rows of a real tensor are F64 [slices,2,C], which whoever needs them adds up in
   * order; those of binary_conv are I64 [1,2,C].
   */
  long batchNormSlices(long rows, int C);

  long batchNormWorkspaceBytes(long rows, int C);

  /** v is real. */
  void batchNormSums(int n, Tensor sums, Tensor v, Tensor workspace);

  void batchNormStatistics(BatchNormStatistics norm, long rows);

  void batchNormInference(
      Tensor affine,
      Tensor runningMean,
      Tensor runningVar,
      Tensor alphaOrNull,
      Tensor gamma,
      Tensor beta,
      double eps);

  /** With {@code normOrNull}, whose sums are integers, {@link #batchNormStatistics} comes first. */
  void batchNormApply(
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor v,
      Tensor affine,
      BatchNormStatistics normOrNull,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull);

  /**
   * dz from dy, and in {@code sums} what {@link #batchNormBwdSums} would make of dz; the other
   * arguments as {@link #batchNormApply} had them. dz may be dy.
   */
  void batchNormRPReluBwd(
      int n,
      Tensor dz,
      Tensor sums,
      RPRelu gradients,
      Tensor dy,
      Tensor v,
      Tensor affine,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rprelu,
      GradMode mode,
      Tensor workspace);

  void batchNormBwdSums(int n, Tensor sums, Tensor dy, Tensor v, Tensor workspace);

  /**
   * {@code rows} are those of the statistics, {@code summedRows} those that the sums were made
   * over: fewer where a max-pool lies between. With {@code shortcutNormOrNull} also those of a
   * shortcut's own normalisation, which was added and so has the same rows, channels and dy.
   */
  void batchNormBwdCoefficients(
      BatchNormBackward norm,
      BatchNormBackward shortcutNormOrNull,
      long summedRows,
      long rows,
      GradMode mode);

  /**
   * dz may be dy. With {@code shortcutDzOrNull} also that of the shortcut's own normalisation,
   * which was added and has the same dy; all three or none.
   */
  void batchNormBwdApply(
      int n,
      Tensor dz,
      Tensor dy,
      Tensor v,
      Tensor coefficients,
      Tensor shortcutDzOrNull,
      Tensor shortcutVOrNull,
      Tensor shortcutCoefficientsOrNull);

  /**
   * Max-pooling of a real v [n,H,W,C] that is to be normalised with {@code gamma}: winners vmax
   * [n,P,Q,C] and their taps, index U8 [n,P,Q,C] (native/ops/batch_norm/batch_norm_max_pool.h).
   * With {@code sumsOrNull} also {@link #batchNormSums} of v.
   */
  void batchNormMaxPoolFwd(
      Conv2dSpec spec,
      int n,
      Tensor vmax,
      Tensor index,
      Tensor sumsOrNull,
      Tensor v,
      Tensor gamma,
      Tensor workspace);

  /** As {@link #batchNormBwdApply}, from dy [n,P,Q,C] behind the max-pool. */
  void batchNormMaxPoolBwdApply(
      Conv2dSpec spec, int n, Tensor dz, Tensor dy, Tensor index, Tensor v, Tensor coefficients);

  // conv2d, linear; w and bias are of the plan's weightType, dw of its gradientType

  void conv2dFwd(Plan.Conv2d plan, int n, Tensor y, Tensor x, Tensor w, Tensor workspace);

  /**
   * {@link #conv2dFwd}, {@link #batchNormMaxPoolFwd} of its output by {@code pool} and {@link
   * #batchNormApply} of the winners with {@code affine}, with the same results, of which only y and
   * bits are written: evaluation. The plan must {@link Plan.Conv2d#fusesMaxPool}.
   */
  void conv2dMaxPoolBatchNormFwd(
      Plan.Conv2d plan,
      Conv2dSpec pool,
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor x,
      Tensor w,
      Tensor gamma,
      Tensor affine,
      Tensor thresholdOrNull,
      Tensor workspace);

  void conv2dBwdInput(Plan.Conv2d plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace);

  void conv2dBwdWeight(
      Plan.Conv2d plan, int n, Tensor dw, Tensor x, Tensor dy, GradMode mode, Tensor workspace);

  void linearFwd(
      Plan.Linear plan, int n, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor workspace);

  void linearBwdInput(Plan.Linear plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace);

  void linearBwdWeight(
      Plan.Linear plan,
      int n,
      Tensor dw,
      Tensor dbias,
      Tensor x,
      Tensor dy,
      GradMode mode,
      Tensor workspace);

  // pool2d, activation

  void avgPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor x);

  void avgPoolBwd(Conv2dSpec spec, int n, Tensor dx, Tensor dy);

  void activationFwd(int n, Tensor y, Tensor x, ActivationKind kind, float slope);

  void activationBwd(
      int n,
      Tensor dx,
      Tensor dy,
      Tensor x,
      Tensor shortcutOrNull,
      ActivationKind kind,
      float slope);

  // softmax_xent

  long softmaxXentWorkspaceBytes(int maxImages);

  /**
   * Metrics of {@code step}, and dlogits (or null) times its loss scale; labels [n] I32; the
   * teacher's logits [n,K] or null, and then temperature is 1.
   */
  void softmaxXent(
      int n,
      StepState step,
      Tensor dlogitsOrNull,
      Tensor logits,
      Tensor labels,
      Tensor teacherLogitsOrNull,
      double smoothing,
      double temperature,
      double gradientScale,
      GradMode mode,
      Tensor workspace);

  // the end of a step: finite_norm, then adam or sgd, then the running statistics

  long finiteNormWorkspaceBytes(long count);

  /**
   * Norm of the gradients, those of binary parameters after their rule. What it leaves in these is
   * for the optimizer only.
   */
  void finiteNorm(Update update, StepState step, Tensor workspace);

  /** With the bits, scales and prepared weights of the binary parameters. */
  void adam(
      Update update, Tensor m, Tensor v, StepState step, double beta1, double beta2, double eps);

  /** With the bits, scales and prepared weights of the binary parameters. */
  void sgd(Update update, Tensor momentumBuffer, StepState step, double momentum, SgdForm form);

  /** Running statistics follow those of the step's micro-batches. */
  void batchNormCommit(Update update, StepState step, int microBatchCount);

  // image

  /** pixels [n,H0,W0,C] U8, crops [n,3] I32 (top, left, flip), mean and std [C] F64. */
  void imageNormalize(
      ImageSpec spec, int n, Tensor x, Tensor pixels, Tensor crops, Tensor mean, Tensor std);

  @Override
  void close();
}
