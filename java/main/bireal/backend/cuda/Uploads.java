package bireal.backend.cuda;

import java.nio.ByteBuffer;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;

/** Copies to the device on a stream of their own, beside the work on the main one. */
final class Uploads {
  private final CudaBackend owner;
  private final CUstream main;
  private final Stream copies = new Stream();
  private final Staging staging;
  private final CUevent arrived = new CUevent();
  private final CUevent released = new CUevent();

  Uploads(CudaBackend owner, CUstream main) {
    this.owner = owner;
    this.main = main;
    owner.call(
        "cuStreamCreate",
        () -> JCudaDriver.cuStreamCreate(copies, CUstream_flags.CU_STREAM_NON_BLOCKING));
    for (CUevent event : new CUevent[] {arrived, released}) {
      owner.call(
          "cuEventCreate",
          () -> JCudaDriver.cuEventCreate(event, CUevent_flags.CU_EVENT_DISABLE_TIMING));
    }
    staging = new Staging(owner, copies);
    release(); // memory is cleared on the main stream
  }

  void write(long target, ByteBuffer source) {
    staging.write(target, source);
  }

  void await() {
    owner.call("cuEventRecord", () -> JCudaDriver.cuEventRecord(arrived, copies));
    owner.call("cuStreamWaitEvent", () -> JCudaDriver.cuStreamWaitEvent(main, arrived, 0));
  }

  void release() {
    owner.call("cuEventRecord", () -> JCudaDriver.cuEventRecord(released, main));
    owner.call("cuStreamWaitEvent", () -> JCudaDriver.cuStreamWaitEvent(copies, released, 0));
  }

  /** Waits until all that was asked for has arrived. */
  void finish() {
    owner.call("cuStreamSynchronize", () -> JCudaDriver.cuStreamSynchronize(copies));
  }

  void close() {
    finish();
    staging.close();
    owner.call("cuEventDestroy", () -> JCudaDriver.cuEventDestroy(arrived));
    owner.call("cuEventDestroy", () -> JCudaDriver.cuEventDestroy(released));
    owner.call("cuStreamDestroy", () -> JCudaDriver.cuStreamDestroy(copies));
  }
}
