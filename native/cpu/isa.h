// Instruction sets of the CPU backend: detection, and the cap that BIREAL_ISA sets.
#pragma once
#include <cstdint>
#include <string>

namespace bireal::cpu {

/// Ordered: a higher value includes the lower ones. Wire codes of bireal.backend.cpu.Isa.
/// kScalar is plain x86-64; kAvx2 is AVX2 + FMA + POPCNT; kAvx512 is AVX-512 F, BW, DQ and VL;
/// kAmx is that with VNNI, VPOPCNTDQ, BMI2 and the 8-bit tiles of AMX, which the system must let the process use.
enum class Isa : int32_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAmx = 3 };

/// What the processor can do beyond `Isa`; both are false below kAvx512.
struct IsaExtras {
  bool vpopcntdq = false;
  bool vnni = false;
};

const char* isa_name(Isa isa);

/// The best set of this processor and operating system, BIREAL_ISA ignored.
Isa detect_isa();
IsaExtras detect_extras();

/// The set named by BIREAL_ISA (scalar, avx2, avx512 or amx), else detect_isa().
/// Throws InvalidArgument if the variable has another value or names a set that this machine lacks: an explicit
/// choice is never replaced silently.
Isa default_isa();

/// Throws InvalidArgument if this machine cannot run `isa`.
void require_isa(Isa isa);

}  // namespace bireal::cpu
