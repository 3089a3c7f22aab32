package bireal.cli;

import bireal.backend.Backend;
import bireal.backend.cpu.CpuBackend;
import bireal.config.BackendKind;

/**
 * The one place that names concrete backends. What is asked for is opened, or an error says what is
 * missing.
 */
final class Backends {
  private Backends() {}

  /** {@code threads} 0: as many as there are cores. The reference runs on one. */
  static Backend open(BackendKind kind, int threads) {
    return switch (kind) {
      case CPU ->
          CpuBackend.open(threads == 0 ? Runtime.getRuntime().availableProcessors() : threads);
      case REFERENCE -> CpuBackend.reference();
    };
  }
}
