package bireal.tensor;

/**
 * A piece of a backend's memory. Owned by whoever allocated it, closed once; a tensor is a view and
 * owns nothing. An arena that is planned but not yet allocated has no address.
 */
public interface Buffer extends AutoCloseable {
  long bytes();

  /**
   * Address on the backend's device; throws IllegalStateException if closed or not yet allocated.
   */
  long address();

  @Override
  void close();
}
