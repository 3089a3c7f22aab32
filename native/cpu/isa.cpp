#include "cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"

namespace bireal::cpu {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Vpopcntdq: return "avx512_vpopcntdq";
    case Isa::kAmx: return "amx";
  }
  return "unknown";
}

namespace {

// CPUID 7.0: EDX bit 24 AMX-TILE, bit 25 AMX-INT8. The system hands the 8 kB of tile registers only to processes that ask.
bool may_use_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 24 & 3) != 3) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, of asm/prctl.h since Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

Isa detect_isa() {
#ifdef BIREAL_EMULATED_ISA  // CMake's BIREAL_EMULATE_ISA: the sources for it are compiled for AVX2
  return Isa::BIREAL_EMULATED_ISA;
#endif
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return avx2 ? Isa::kAvx2 : Isa::kScalar;
  if (!__builtin_cpu_supports("avx512vpopcntdq")) return Isa::kAvx512;
  static const bool tiles = may_use_tiles();
  return tiles && __builtin_cpu_supports("bmi2") ? Isa::kAmx : Isa::kAvx512Vpopcntdq;
}

void require_isa(Isa isa) {
  require(isa >= Isa::kScalar && isa <= Isa::kAmx, "unknown instruction set code " + std::to_string(int(isa)));
  require(isa <= detect_isa(),
          std::string("instruction set ") + isa_name(isa) + " asked for, but this processor has only " + isa_name(detect_isa()));
}

Isa default_isa() {
  const char* wanted = std::getenv("BIREAL_ISA");
  if (wanted == nullptr || *wanted == '\0') return detect_isa();
  for (Isa isa : kIsas) {
    if (std::string(wanted) == isa_name(isa)) {
      require_isa(isa);
      return isa;
    }
  }
  throw InvalidArgument(std::string("BIREAL_ISA=") + wanted + ": use scalar, avx2, avx512, avx512_vpopcntdq or amx");
}

}  // namespace bireal::cpu
