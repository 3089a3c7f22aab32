package bireal.backend;

/**
 * The end of a training step, prepared by {@link Backend#planUpdate}. Owned by whoever planned it;
 * closed before its backend.
 */
public interface Update extends AutoCloseable {
  UpdateSpec spec();

  @Override
  void close();
}
