#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"

namespace bireal::cpu {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "unknown";
}

Isa detect_isa() {
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::kAvx512 : avx2 ? Isa::kAvx2 : Isa::kScalar;
}

IsaExtras detect_extras() {
  __builtin_cpu_init();
  IsaExtras extras;
  extras.vpopcntdq = __builtin_cpu_supports("avx512vpopcntdq");
  extras.vnni = __builtin_cpu_supports("avx512vnni");
  return extras;
}

void require_isa(Isa isa) {
  require(isa >= Isa::kScalar && isa <= Isa::kAvx512, "unknown instruction set code " + std::to_string(int(isa)));
  require(isa <= detect_isa(),
          std::string("instruction set ") + isa_name(isa) + " asked for, but this processor has only " + isa_name(detect_isa()));
}

Isa default_isa() {
  const char* wanted = std::getenv("BIREAL_ISA");
  if (wanted == nullptr || *wanted == '\0') return detect_isa();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (std::string(wanted) == isa_name(isa)) {
      require_isa(isa);
      return isa;
    }
  }
  throw InvalidArgument(std::string("BIREAL_ISA=") + wanted + ": use scalar, avx2 or avx512");
}

}  // namespace bireal::cpu
