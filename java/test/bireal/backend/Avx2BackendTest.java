package bireal.backend;

import bireal.backend.cpu.CpuBackend;
import bireal.backend.cpu.Isa;
import org.junit.jupiter.api.condition.EnabledIf;

@EnabledIf(value = "available", disabledReason = "this processor lacks it")
class Avx2BackendTest extends BackendContract {
  static boolean available() {
    try (CpuBackend best = CpuBackend.open(1)) {
      return best.isa().compareTo(Isa.AVX2) >= 0;
    }
  }

  @Override
  Backend open() {
    return CpuBackend.open(3, Isa.AVX2);
  }
}
