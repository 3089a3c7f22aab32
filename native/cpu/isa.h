// Instruction sets of the CPU backend: detection, and the cap that BIREAL_ISA sets.
#pragma once
#include <cstdint>
#include <string>

namespace bireal::cpu {

/// Ordered: a higher value includes the lower ones. Wire codes of bireal.backend.cpu.Isa.
/// kScalar is plain x86-64; kAvx2 is AVX2 + FMA + POPCNT; kAvx512 is AVX-512 F, BW, DQ and VL; kAvx512Vpopcntdq is that with
/// VPOPCNTDQ; kAmx is that with BMI2 and the 8-bit tiles of AMX, which the system must let the process use.
/// VNNI makes no difference: the table look-ups of the fixed-point gradients do twice the multiply-adds of VPDPWSSD.
enum class Isa : int32_t { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Vpopcntdq = 3, kAmx = 4 };
constexpr Isa kIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vpopcntdq, Isa::kAmx};

const char* isa_name(Isa isa);

/// The best set of this processor and operating system, BIREAL_ISA ignored.
Isa detect_isa();

/// The set named by BIREAL_ISA (scalar, avx2, avx512, avx512_vpopcntdq or amx), else detect_isa().
/// Throws InvalidArgument if the variable has another value or names a set that this machine lacks: an explicit
/// choice is never replaced silently.
Isa default_isa();

/// Throws InvalidArgument if this machine cannot run `isa`.
void require_isa(Isa isa);

}  // namespace bireal::cpu
