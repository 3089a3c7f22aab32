package bireal.backend;

import bireal.backend.cpu.CpuBackend;
import bireal.backend.cpu.Isa;
import org.junit.jupiter.api.condition.EnabledIf;

@EnabledIf(value = "available", disabledReason = "this processor lacks it")
class Avx512BackendTest extends BackendContract {
  static boolean available() {
    try (CpuBackend best = CpuBackend.open(1)) {
      return best.isa().compareTo(Isa.AVX512) >= 0;
    }
  }

  @Override
  Backend open() {
    return CpuBackend.open(3, Isa.AVX512);
  }
}
