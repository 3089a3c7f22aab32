package bireal.config;

/** Which implementation of {@link bireal.backend.Backend} runs. */
public enum BackendKind {
  /** Fast, multi-threaded. */
  CPU,
  /** Slow and plain: what the others are tested against. */
  REFERENCE
}
