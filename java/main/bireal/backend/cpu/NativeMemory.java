package bireal.backend.cpu;

import java.nio.ByteBuffer;

/** Native memory, and the one place where buffers turn into addresses and back. */
final class NativeMemory {
  private NativeMemory() {}

  /** Zero-filled, page-aligned. Throws OutOfMemoryError. */
  static native long allocate(long bytes);

  static native void free(long address, long bytes);

  static native void zero(long address, long bytes);

  static native void copy(long target, long source, long bytes);

  /** Address of element 0 of a direct buffer. */
  static native long address(ByteBuffer direct);

  /** A view of {@code bytes} bytes; valid until they are freed. */
  static native ByteBuffer view(long address, long bytes);
}
