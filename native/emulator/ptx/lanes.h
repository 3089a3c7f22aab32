// Turns a plain function of values into a handler over lanes: lanes<add<float>>(d, InstructionClass::kFloat) decodes operands by
// the function's own types and installs the loop.
//
// The loop computes all lanes, those too that are not active, if so into an array of its own, of which `mask` says what is kept:
// functions have a value for whatever lies there. One loop without aliases to vectorise, where one by mask beside it took twice
// as long to compile, some hundred times over.
#pragma once
#include <iterator>
#include <tuple>

#include "emulator/ptx/decode.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

template <class S>
inline void keep_lanes(S* d, const S* result, uint32_t mask) {
  if (mask == kAllLanes)
    std::memcpy(d, result, kLanes * sizeof(S));
  else
    for_set_lanes(mask, [&](int lane) { d[lane] = result[lane]; });
}

template <auto F, class D, class... A>
struct LaneLoop {
  template <size_t... I>
  static void run_with(Warp& warp, const Instruction& in, uint32_t mask, std::index_sequence<I...>) {
    std::tuple<const Slot<A>*...> a(warp.in<A>(in.args[I + 1])...);
    Slot<D> kept[kLanes];
    // A register that is read and written too is so lane by lane, unless the one is seen as wider than the other.
    constexpr bool kSameWidth = ((sizeof(Slot<A>) == sizeof(Slot<D>)) && ...);
    Slot<D>* result = kSameWidth && mask == kAllLanes ? warp.out<D>(in.args[0]) : kept;
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) {
      if constexpr (std::is_invocable_v<decltype(F), A...>)
        result[lane] = to_slot<D>(F(from_slot<A>(std::get<I>(a)[lane])...));
      else
        result[lane] = to_slot<D>(F(in, from_slot<A>(std::get<I>(a)[lane])...));
    }
    if (result == kept) keep_lanes(warp.out<D>(in.args[0]), result, mask);
  }
  static void run(Warp& warp, const Instruction& in, uint32_t mask) { run_with(warp, in, mask, std::index_sequence_for<A...>()); }
  /// Of the result and the arguments.
  static constexpr int kBytes[] = {sizeof(D), sizeof(A)...};
};

template <auto F, class Signature>
struct LaneOp;
template <auto F, class D, class... A>
struct LaneOp<F, D (*)(A...)> : LaneLoop<F, D, A...> {};
template <auto F, class D, class... A>
struct LaneOp<F, D (*)(const Instruction&, A...)> : LaneLoop<F, D, A...> {};

/// d = F(a, b, ...) for each lane, or F(instruction, a, b, ...), which looks up there what kind it is.
template <auto F>
bool lanes(Decoder& d, InstructionClass category) {
  using Op = LaneOp<F, decltype(F)>;
  d.in.category = category;
  d.in.run = Op::run;
  d.registers(Op::kBytes, std::size(Op::kBytes));
  return true;
}

}  // namespace bireal::ptx
