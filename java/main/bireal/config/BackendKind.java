package bireal.config;

/** Which implementation of {@link bireal.backend.Backend} runs. */
public enum BackendKind {
  /** Fast, multi-threaded. */
  CPU,
  /** An NVIDIA GPU. */
  CUDA,
  /** CUDA where there is a usable GPU, else CPU. */
  AUTO,
  /** Slow and plain: what the others are tested against. */
  REFERENCE
}
