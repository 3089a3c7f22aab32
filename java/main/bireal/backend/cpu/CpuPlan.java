package bireal.backend.cpu;

import bireal.backend.Conv2dSpec;
import bireal.backend.Plan;
import bireal.runtime.NativeHandle;
import bireal.tensor.DType;
import java.util.function.LongConsumer;

/**
 * Plans of {@link CpuBackend}: a native object and what it said of itself. Closed by whoever
 * planned.
 */
abstract class CpuPlan implements Plan {
  private final Handle handle;
  private final int maxImages;
  private final long workspaceBytes;
  private final String kernelName;

  private CpuPlan(Handle handle, int maxImages, long workspaceBytes, String kernelName) {
    this.handle = handle;
    this.maxImages = maxImages;
    this.workspaceBytes = workspaceBytes;
    this.kernelName = kernelName;
  }

  /** Throws IllegalStateException after close(). */
  final long pointer() {
    return handle.pointer();
  }

  @Override
  public final int maxImages() {
    return maxImages;
  }

  @Override
  public final long workspaceBytes() {
    return workspaceBytes;
  }

  @Override
  public final String kernelName() {
    return kernelName;
  }

  @Override
  public final void close() {
    handle.close();
  }

  static final class Handle extends NativeHandle {
    Handle(String what, long pointer, LongConsumer free) {
      super(what, pointer, free);
    }
  }

  static final class BinaryConv extends CpuPlan implements Plan.BinaryConv {
    private final Conv2dSpec spec;
    private final long preparedBytes;
    private final DType valueType;
    final boolean hasBackward;

    BinaryConv(Conv2dSpec spec, int maxImages, boolean hasBackward, long pointer) {
      super(
          new Handle("binary convolution plan " + spec, pointer, CpuOps::destroyBinaryConv),
          maxImages,
          CpuOps.binaryConvWorkspaceBytes(pointer),
          CpuOps.binaryConvKernelName(pointer));
      this.spec = spec;
      this.hasBackward = hasBackward;
      this.preparedBytes = CpuOps.binaryConvPreparedBytes(pointer);
      this.valueType =
          CpuOps.binaryConvValueType(pointer) == DType.I16.code ? DType.I16 : DType.I32;
    }

    @Override
    public Conv2dSpec spec() {
      return spec;
    }

    @Override
    public long preparedBytes() {
      return preparedBytes;
    }

    @Override
    public DType valueType() {
      return valueType;
    }

    @Override
    public long fallbacks() {
      return CpuOps.binaryConvFallbacks(pointer());
    }
  }

  static final class Conv2d extends CpuPlan implements Plan.Conv2d {
    private final Conv2dSpec spec;

    Conv2d(Conv2dSpec spec, int maxImages, long pointer) {
      super(
          new Handle("convolution plan " + spec, pointer, CpuOps::destroyConv2d),
          maxImages,
          CpuOps.conv2dWorkspaceBytes(pointer),
          CpuOps.conv2dKernelName(pointer));
      this.spec = spec;
    }

    @Override
    public Conv2dSpec spec() {
      return spec;
    }
  }

  static final class Linear extends CpuPlan implements Plan.Linear {
    private final int inputs;
    private final int outputs;

    Linear(String kernelName, int inputs, int outputs, int maxImages, long pointer) {
      super(
          new Handle("linear plan " + inputs + " to " + outputs, pointer, CpuOps::destroyLinear),
          maxImages,
          CpuOps.linearWorkspaceBytes(pointer),
          kernelName);
      this.inputs = inputs;
      this.outputs = outputs;
    }

    @Override
    public int C() {
      return inputs;
    }

    @Override
    public int K() {
      return outputs;
    }
  }
}
