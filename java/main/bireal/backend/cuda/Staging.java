package bireal.backend.cuda;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import jcuda.Pointer;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.CUstream;
import jcuda.driver.JCudaDriver;

/**
 * Pinned memory between Java's buffers and the device. A write copies into one of two slots and
 * goes on while the device fetches it; the slot is used again when its event says so.
 */
final class Staging {
  /** Large enough that the link's latency does not count; a batch of 512 images takes 12. */
  private static final int SLOT_BYTES = 8 << 20;

  private final CudaBackend owner;
  private final CUstream stream;
  private final Pointer[] slots = new Pointer[2];
  private final ByteBuffer[] views = new ByteBuffer[2];
  private final CUevent[] fetched = new CUevent[2];
  private int next;

  Staging(CudaBackend owner, CUstream stream) {
    this.owner = owner;
    this.stream = stream;
    for (int i = 0; i < slots.length; i++) {
      Pointer slot = new Pointer();
      CUevent event = new CUevent();
      owner.call("cuMemHostAlloc", () -> JCudaDriver.cuMemHostAlloc(slot, SLOT_BYTES, 0));
      owner.call(
          "cuEventCreate",
          () -> JCudaDriver.cuEventCreate(event, CUevent_flags.CU_EVENT_DISABLE_TIMING));
      slots[i] = slot;
      views[i] = slot.getByteBuffer(0, SLOT_BYTES).order(ByteOrder.nativeOrder());
      fetched[i] = event;
    }
  }

  /** Returns when {@code source} may change. */
  void write(long target, ByteBuffer source) {
    for (long offset = 0; source.hasRemaining(); ) {
      int slot = next;
      next = 1 - next;
      int bytes = Math.min(SLOT_BYTES, source.remaining());
      owner.call("cuEventSynchronize", () -> JCudaDriver.cuEventSynchronize(fetched[slot]));
      views[slot].clear().put(source.slice(source.position(), bytes));
      source.position(source.position() + bytes);
      long to = target + offset;
      owner.call(
          "cuMemcpyHtoDAsync",
          () ->
              JCudaDriver.cuMemcpyHtoDAsync(
                  CudaBackend.devicePointer(to), slots[slot], bytes, stream));
      owner.call("cuEventRecord", () -> JCudaDriver.cuEventRecord(fetched[slot], stream));
      offset += bytes;
    }
  }

  /** Waits for all work before, and for the bytes. */
  void read(ByteBuffer target, long source) {
    int slot = next;
    owner.call("cuEventSynchronize", () -> JCudaDriver.cuEventSynchronize(fetched[slot]));
    for (long offset = 0; target.hasRemaining(); ) {
      int bytes = Math.min(SLOT_BYTES, target.remaining());
      long from = source + offset;
      owner.call(
          "cuMemcpyDtoHAsync",
          () ->
              JCudaDriver.cuMemcpyDtoHAsync(
                  slots[slot], CudaBackend.devicePointer(from), bytes, stream));
      owner.call("cuStreamSynchronize", () -> JCudaDriver.cuStreamSynchronize(stream));
      target.put(views[slot].clear().limit(bytes));
      offset += bytes;
    }
  }

  void close() {
    for (int i = 0; i < slots.length; i++) {
      int slot = i;
      owner.call("cuEventDestroy", () -> JCudaDriver.cuEventDestroy(fetched[slot]));
      owner.call("cuMemFreeHost", () -> JCudaDriver.cuMemFreeHost(slots[slot]));
    }
  }
}
