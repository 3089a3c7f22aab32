package bireal.backend.cuda;

import bireal.backend.Conv2dSpec;
import bireal.runtime.DeviceException;
import bireal.tensor.DType;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import jcuda.Pointer;
import jcuda.jcudnn.JCudnn;
import jcuda.jcudnn.cudnnConvolutionBwdDataAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionBwdFilterAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionDescriptor;
import jcuda.jcudnn.cudnnConvolutionFwdAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionMode;
import jcuda.jcudnn.cudnnDataType;
import jcuda.jcudnn.cudnnDeterminism;
import jcuda.jcudnn.cudnnFilterDescriptor;
import jcuda.jcudnn.cudnnMathType;
import jcuda.jcudnn.cudnnTensorDescriptor;
import jcuda.jcudnn.cudnnTensorFormat;

/**
 * The three passes of a real convolution through cuDNN's legacy API, over NHWC and KRSC tensors of
 * one type. Only deterministic algorithms; float32 is true float32, without TF32. Where there is
 * none for NHWC, the operands are copied to NCHW and back in the workspace. Sums are float32.
 */
final class CudnnConvolution implements AutoCloseable {
  /** Output and operands: y of x and w, dx of dy and w, dw of x and dy. */
  enum Pass {
    FORWARD,
    BACKWARD_INPUT,
    BACKWARD_WEIGHT
  }

  /** An algorithm that cuDNN offers for a pass. */
  record Choice(int algorithm, int mathType, boolean nchw, long bytes) {}

  private static final long ALIGNMENT = 256;

  /** Statuses of cuDNN 9: thousands of CUDNN_STATUS_NOT_SUPPORTED and its kinds, and two more. */
  private static final int NOT_SUPPORTED = 3;

  private static final int HOST_ALLOCATION_FAILED = 4003;
  private static final int DEVICE_ALLOCATION_FAILED = 4004;

  private record Key(Pass pass, long images) {}

  /** Descriptors of x and y for a number of images, in a layout. */
  private record Images(cudnnTensorDescriptor x, cudnnTensorDescriptor y) {}

  private final CudaBackend owner;
  private final Conv2dSpec spec;
  private final int maxImages;
  private final DType type;
  private final cudnnConvolutionDescriptor convolution = new cudnnConvolutionDescriptor();
  private final cudnnFilterDescriptor[] filters = new cudnnFilterDescriptor[2];
  private final cudnnTensorDescriptor[] filtersAsTensors = new cudnnTensorDescriptor[2];
  private final Map<Long, Images> images = new HashMap<>();
  private final Map<Key, Choice> choices = new HashMap<>();
  private final Map<Pass, Choice> planned = new HashMap<>();
  private final long workspaceBytes;

  /**
   * Chooses an algorithm for each pass of {@code maxImages} images. Throws DeviceException if cuDNN
   * has none.
   */
  CudnnConvolution(CudaBackend owner, Conv2dSpec spec, int maxImages, DType type) {
    this.owner = owner;
    this.spec = spec;
    this.maxImages = maxImages;
    this.type = type;
    owner.call(
        "cudnnCreateConvolutionDescriptor",
        () -> JCudnn.cudnnCreateConvolutionDescriptor(convolution));
    owner.call(
        "cudnnSetConvolution2dDescriptor",
        () ->
            JCudnn.cudnnSetConvolution2dDescriptor(
                convolution,
                spec.pad(),
                spec.pad(),
                spec.stride(),
                spec.stride(),
                1,
                1,
                cudnnConvolutionMode.CUDNN_CROSS_CORRELATION,
                cudnnDataType.CUDNN_DATA_FLOAT));
    for (int layout = 0; layout < 2; layout++) {
      cudnnFilterDescriptor filter = new cudnnFilterDescriptor();
      int format = format(layout == 1);
      owner.call("cudnnCreateFilterDescriptor", () -> JCudnn.cudnnCreateFilterDescriptor(filter));
      owner.call(
          "cudnnSetFilter4dDescriptor",
          () ->
              JCudnn.cudnnSetFilter4dDescriptor(
                  filter, dataType(), format, spec.K(), spec.C(), spec.R(), spec.S()));
      filters[layout] = filter;
      filtersAsTensors[layout] = tensor(format, spec.K(), spec.C(), spec.R(), spec.S());
    }
    long bytes = 0;
    for (Pass pass : Pass.values()) {
      Choice choice = CudnnAlgorithms.choose(this, pass);
      planned.put(pass, choice);
      choices.put(new Key(pass, maxImages), choice);
      bytes = Math.max(bytes, workspaceBytes(choice, maxImages));
    }
    workspaceBytes = bytes;
  }

  CudaBackend owner() {
    return owner;
  }

  Conv2dSpec spec() {
    return spec;
  }

  int maxImages() {
    return maxImages;
  }

  DType type() {
    return type;
  }

  long workspaceBytes() {
    return workspaceBytes;
  }

  /** For people: library, layout and number of the forward algorithm. */
  String name() {
    Choice forward = planned.get(Pass.FORWARD);
    return "cuDNN" + (forward.nchw() ? " nchw" : "") + " algo " + forward.algorithm();
  }

  private static int format(boolean nchw) {
    return nchw ? cudnnTensorFormat.CUDNN_TENSOR_NCHW : cudnnTensorFormat.CUDNN_TENSOR_NHWC;
  }

  private int dataType() {
    return switch (type) {
      case F32 -> cudnnDataType.CUDNN_DATA_FLOAT;
      case F16 -> cudnnDataType.CUDNN_DATA_HALF;
      case BF16 -> cudnnDataType.CUDNN_DATA_BFLOAT16;
      default -> throw new IllegalArgumentException("no convolution of " + type);
    };
  }

  private cudnnTensorDescriptor tensor(int format, int n, int c, int h, int w) {
    cudnnTensorDescriptor made = new cudnnTensorDescriptor();
    owner.call("cudnnCreateTensorDescriptor", () -> JCudnn.cudnnCreateTensorDescriptor(made));
    owner.call(
        "cudnnSetTensor4dDescriptor",
        () -> JCudnn.cudnnSetTensor4dDescriptor(made, format, dataType(), n, c, h, w));
    return made;
  }

  private Images images(long n, boolean nchw) {
    return images.computeIfAbsent(
        2 * n + (nchw ? 1 : 0),
        key ->
            new Images(
                tensor(format(nchw), (int) n, spec.C(), spec.H(), spec.W()),
                tensor(format(nchw), (int) n, spec.K(), spec.P(), spec.Q())));
  }

  private static long aligned(long bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }

  private long elementBytes() {
    return type == DType.F32 ? 4 : 2;
  }

  private long copyBytes(boolean nchw, long n) {
    return nchw
        ? aligned(spec.inputCount(n) * elementBytes())
            + aligned(spec.outputCount(n) * elementBytes())
            + aligned(spec.weights().count() * elementBytes())
        : 0;
  }

  private void setMathType(int mathType) {
    owner.call(
        "cudnnSetConvolutionMathType",
        () -> JCudnn.cudnnSetConvolutionMathType(convolution, mathType));
  }

  /**
   * What cuDNN offers for {@code n} images, fastest first: deterministic, and for F32 without TF32.
   * With {@code measured} it runs and times them, which takes memory for a moment.
   */
  List<Choice> offers(Pass pass, long n, boolean nchw, boolean measured) {
    setMathType(askedMathType());
    Images of = images(n, nchw);
    cudnnFilterDescriptor w = filters[nchw ? 1 : 0];
    int[] count = new int[1];
    List<Choice> offers = new ArrayList<>();
    switch (pass) {
      case FORWARD -> {
        owner.call(
            "cudnnGetConvolutionForwardAlgorithmMaxCount",
            () -> JCudnn.cudnnGetConvolutionForwardAlgorithmMaxCount(owner.dnn(), count));
        var list = new cudnnConvolutionFwdAlgoPerf[count[0]];
        java.util.Arrays.setAll(list, i -> new cudnnConvolutionFwdAlgoPerf());
        list(
            "listing cuDNN's forward algorithms",
            count,
            () -> {
              if (measured) {
                JCudnn.cudnnFindConvolutionForwardAlgorithm(
                    owner.dnn(), of.x, w, convolution, of.y, list.length, count, list);
              } else {
                JCudnn.cudnnGetConvolutionForwardAlgorithm_v7(
                    owner.dnn(), of.x, w, convolution, of.y, list.length, count, list);
              }
            });
        for (int i = 0; i < count[0]; i++) {
          var p = list[i];
          offer(offers, p.algo, p.status, p.determinism, mathType(p.mathType), p.memory, nchw);
        }
      }
      case BACKWARD_INPUT -> {
        owner.call(
            "cudnnGetConvolutionBackwardDataAlgorithmMaxCount",
            () -> JCudnn.cudnnGetConvolutionBackwardDataAlgorithmMaxCount(owner.dnn(), count));
        var list = new cudnnConvolutionBwdDataAlgoPerf[count[0]];
        java.util.Arrays.setAll(list, i -> new cudnnConvolutionBwdDataAlgoPerf());
        list(
            "listing cuDNN's backward data algorithms",
            count,
            () -> {
              if (measured) {
                JCudnn.cudnnFindConvolutionBackwardDataAlgorithm(
                    owner.dnn(), w, of.y, convolution, of.x, list.length, count, list);
              } else {
                JCudnn.cudnnGetConvolutionBackwardDataAlgorithm_v7(
                    owner.dnn(), w, of.y, convolution, of.x, list.length, count, list);
              }
            });
        for (int i = 0; i < count[0]; i++) {
          var p = list[i];
          offer(offers, p.algo, p.status, p.determinism, mathType(p.mathType), p.memory, nchw);
        }
      }
      case BACKWARD_WEIGHT -> {
        owner.call(
            "cudnnGetConvolutionBackwardFilterAlgorithmMaxCount",
            () -> JCudnn.cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(owner.dnn(), count));
        var list = new cudnnConvolutionBwdFilterAlgoPerf[count[0]];
        java.util.Arrays.setAll(list, i -> new cudnnConvolutionBwdFilterAlgoPerf());
        list(
            "listing cuDNN's backward filter algorithms",
            count,
            () -> {
              if (measured) {
                JCudnn.cudnnFindConvolutionBackwardFilterAlgorithm(
                    owner.dnn(), of.x, of.y, convolution, w, list.length, count, list);
              } else {
                JCudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                    owner.dnn(), of.x, of.y, convolution, w, list.length, count, list);
              }
            });
        for (int i = 0; i < count[0]; i++) {
          var p = list[i];
          offer(offers, p.algo, p.status, p.determinism, mathType(p.mathType), p.memory, nchw);
        }
      }
    }

    return offers;
  }

  /**
   * Lists into {@code count}: 0 where cuDNN says that it supports none, which another layout may
   * mend. Throws DeviceException for every other status.
   */
  private void list(String op, int[] count, CudaBackend.Call call) {
    try {
      owner.call(op, call);
    } catch (DeviceException e) {
      int status = CudaBackend.dnnStatus(e.getCause());
      if (status / 1000 == NOT_SUPPORTED) {
        count[0] = 0;
      } else if (status == HOST_ALLOCATION_FAILED || status == DEVICE_ALLOCATION_FAILED) {
        throw owner.outOfMemory(op, e.getMessage(), e);
      } else {
        throw e;
      }
    } catch (ArrayIndexOutOfBoundsException e) {
      // JCudnn copies as many entries as cuDNN counted before it looks at the status, and cuDNN
      // need not write the count of a list that it refuses.
      int sticky = CudaOps.stickyError(owner.context());
      if (CudaOps.isFatal(sticky)) {
        throw new DeviceException(op, sticky, op + ": the device is lost", true);
      }
      System.err.println(
          "bireal: "
              + op
              + " of "
              + spec
              + " in "
              + type
              + " failed, with a status that JCudnn lost; to see it, set CUDNN_LOGLEVEL_DBG=1 and"
              + " CUDNN_LOGDEST_DBG=stderr");
      count[0] = 0;
    }
  }

  /**
   * JCudnn leaves the math type of forward and backward data algorithms 0; then it is what was
   * asked for.
   */
  private int mathType(int returned) {
    return returned == 0 ? askedMathType() : returned;
  }

  private int askedMathType() {
    return type == DType.F32 ? cudnnMathType.CUDNN_FMA_MATH : cudnnMathType.CUDNN_TENSOR_OP_MATH;
  }

  private void offer(
      List<Choice> offers,
      int algorithm,
      int status,
      int determinism,
      int mathType,
      long bytes,
      boolean nchw) {
    if (status == 0
        && determinism == cudnnDeterminism.CUDNN_DETERMINISTIC
        && (type != DType.F32 || mathType == cudnnMathType.CUDNN_FMA_MATH)) {
      offers.add(new Choice(algorithm, mathType, nchw, aligned(bytes)));
    }
  }

  /** {@code choice} for {@code n} images; null if cuDNN does not offer it for them. */
  Choice at(Pass pass, Choice choice, long n) {
    for (Choice offer : offers(pass, n, choice.nchw(), false)) {
      if (offer.algorithm() == choice.algorithm() && offer.mathType() == choice.mathType()) {
        return offer;
      }
    }
    return null;
  }

  long workspaceBytes(Choice choice, long n) {
    return copyBytes(choice.nchw(), n) + choice.bytes();
  }

  /** Of a batch smaller than planned: what fits the planned workspace. */
  private Choice choice(Pass pass, long n) {
    return choices.computeIfAbsent(
        new Key(pass, n),
        key -> {
          for (boolean nchw : new boolean[] {false, true}) {
            List<Choice> offers = offers(pass, n, nchw, false);
            // The same algorithm as for a whole batch, if there is a choice.
            offers.sort(
                java.util.Comparator.comparing(
                    o -> o.algorithm() != planned.get(pass).algorithm()));
            for (Choice offer : offers) {
              if (workspaceBytes(offer, n) <= workspaceBytes) {
                return offer;
              }
            }
          }
          throw new DeviceException(
              "cuDNN",
              0,
              "cuDNN has no deterministic algorithm for pass "
                  + pass
                  + " of "
                  + n
                  + " images of "
                  + spec
                  + " in "
                  + type
                  + " that fits the workspace of "
                  + workspaceBytes
                  + " bytes",
              false);
        });
  }

  /** {@code out}, {@code a} and {@code b}: see {@link Pass}; {@code accumulate} adds to out. */
  void run(Pass pass, long out, long a, long b, long n, boolean accumulate, long workspace) {
    run(pass, choice(pass, n), out, a, b, n, accumulate, workspace);
  }

  void run(
      Pass pass,
      Choice choice,
      long out,
      long a,
      long b,
      long n,
      boolean accumulate,
      long workspace) {
    Images plain = images(n, false);
    cudnnTensorDescriptor w = filtersAsTensors[0];
    if (!choice.nchw()) {
      convolve(pass, choice, out, a, b, n, accumulate, workspace);
      return;
    }
    Images other = images(n, true);
    long x = workspace;
    long y = x + aligned(spec.inputCount(n) * elementBytes());
    long filter = y + aligned(spec.outputCount(n) * elementBytes());
    long scratch = workspace + copyBytes(true, n);
    switch (pass) {
      case FORWARD -> {
        transform(plain.x, a, other.x, x, false);
        transform(w, b, filtersAsTensors[1], filter, false);
        convolve(pass, choice, y, x, filter, n, false, scratch);
        transform(other.y, y, plain.y, out, accumulate);
      }
      case BACKWARD_INPUT -> {
        transform(plain.y, a, other.y, y, false);
        transform(w, b, filtersAsTensors[1], filter, false);
        convolve(pass, choice, x, y, filter, n, false, scratch);
        transform(other.x, x, plain.x, out, accumulate);
      }
      case BACKWARD_WEIGHT -> {
        transform(plain.x, a, other.x, x, false);
        transform(plain.y, b, other.y, y, false);
        convolve(pass, choice, filter, x, y, n, false, scratch);
        transform(filtersAsTensors[1], filter, w, out, accumulate);
      }
    }
  }

  private void transform(
      cudnnTensorDescriptor from, long source, cudnnTensorDescriptor to, long target, boolean add) {
    owner.call(
        "cudnnTransformTensor",
        () ->
            JCudnn.cudnnTransformTensor(
                owner.dnn(),
                CudaBackend.ONE,
                from,
                CudaBackend.pointer(source),
                add ? CudaBackend.ONE : CudaBackend.ZERO,
                to,
                CudaBackend.pointer(target)));
  }

  private void convolve(
      Pass pass,
      Choice choice,
      long out,
      long a,
      long b,
      long n,
      boolean accumulate,
      long workspace) {
    setMathType(choice.mathType());
    Images of = images(n, choice.nchw());
    cudnnFilterDescriptor w = filters[choice.nchw() ? 1 : 0];
    Pointer beta = accumulate ? CudaBackend.ONE : CudaBackend.ZERO;
    Pointer scratch = CudaBackend.pointer(workspace);
    switch (pass) {
      case FORWARD ->
          owner.call(
              "cudnnConvolutionForward",
              () ->
                  JCudnn.cudnnConvolutionForward(
                      owner.dnn(),
                      CudaBackend.ONE,
                      of.x,
                      CudaBackend.pointer(a),
                      w,
                      CudaBackend.pointer(b),
                      convolution,
                      choice.algorithm(),
                      scratch,
                      choice.bytes(),
                      beta,
                      of.y,
                      CudaBackend.pointer(out)));
      case BACKWARD_INPUT ->
          owner.call(
              "cudnnConvolutionBackwardData",
              () ->
                  JCudnn.cudnnConvolutionBackwardData(
                      owner.dnn(),
                      CudaBackend.ONE,
                      w,
                      CudaBackend.pointer(b),
                      of.y,
                      CudaBackend.pointer(a),
                      convolution,
                      choice.algorithm(),
                      scratch,
                      choice.bytes(),
                      beta,
                      of.x,
                      CudaBackend.pointer(out)));
      case BACKWARD_WEIGHT ->
          owner.call(
              "cudnnConvolutionBackwardFilter",
              () ->
                  JCudnn.cudnnConvolutionBackwardFilter(
                      owner.dnn(),
                      CudaBackend.ONE,
                      of.x,
                      CudaBackend.pointer(a),
                      of.y,
                      CudaBackend.pointer(b),
                      convolution,
                      choice.algorithm(),
                      scratch,
                      choice.bytes(),
                      beta,
                      w,
                      CudaBackend.pointer(out)));
    }
  }

  @Override
  public void close() {
    for (Images of : images.values()) {
      owner.call(
          "cudnnDestroyTensorDescriptor",
          () -> {
            JCudnn.cudnnDestroyTensorDescriptor(of.x);
            JCudnn.cudnnDestroyTensorDescriptor(of.y);
          });
    }
    for (int layout = 0; layout < 2; layout++) {
      cudnnFilterDescriptor filter = filters[layout];
      cudnnTensorDescriptor tensor = filtersAsTensors[layout];
      owner.call("cudnnDestroyFilterDescriptor", () -> JCudnn.cudnnDestroyFilterDescriptor(filter));
      owner.call("cudnnDestroyTensorDescriptor", () -> JCudnn.cudnnDestroyTensorDescriptor(tensor));
    }
    owner.call(
        "cudnnDestroyConvolutionDescriptor",
        () -> JCudnn.cudnnDestroyConvolutionDescriptor(convolution));
    images.clear();
  }
}
