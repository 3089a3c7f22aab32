package bireal.backend;

import bireal.tensor.Buffer;

/** Memory of a {@link CheckedBackend}; closed by its owner, or by the backend at the end. */
final class OwnedBuffer implements Buffer {
  private final CheckedBackend owner;
  private final String what;
  private final long bytes;
  private long address;

  OwnedBuffer(CheckedBackend owner, String what, long bytes, long address) {
    this.owner = owner;
    this.what = what;
    this.bytes = bytes;
    this.address = address;
  }

  CheckedBackend owner() {
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

  void forget() {
    address = 0;
  }

  @Override
  public void close() {
    if (address != 0) {
      long freed = address;
      address = 0;
      owner.closed(this, freed);
    }
  }
}
