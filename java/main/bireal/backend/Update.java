package bireal.backend;

/**
 * The end of a training step, prepared by {@link Backend#planUpdate}. Owned by whoever planned it;
 * closed before its backend.
 */
public interface Update extends AutoCloseable {
  UpdateSpec spec();

  /**
   * Takes what memory the update itself needs, once the tensors of its spec have theirs; without it
   * the first use does. Throws DeviceException if it is not there.
   */
  default void prepare() {}

  @Override
  void close();
}
