package bireal.backend.cpu;

import bireal.tensor.Buffer;

/** Memory of a {@link CpuBackend}; closed by its owner, or by the backend at the end. */
final class CpuBuffer implements Buffer {
  private final CpuBackend owner;
  private final String what;
  private final long bytes;
  private long address;

  CpuBuffer(CpuBackend owner, String what, long bytes) {
    this.owner = owner;
    this.what = what;
    this.bytes = bytes;
    this.address = NativeMemory.allocate(bytes);
  }

  CpuBackend owner() {
    return owner;
  }

  @Override
  public long bytes() {
    return bytes;
  }

  @Override
  public long address() {
    if (address == 0) {
      throw new IllegalStateException("buffer '" + what + "' is closed");
    }
    return address;
  }

  @Override
  public void close() {
    if (address != 0) {
      NativeMemory.free(address, bytes);
      address = 0;
      owner.closed(this);
    }
  }
}
