// Turns a plain function of values into a handler over lanes: lanes<add<float>>(d, InstructionClass::kFloat) decodes operands by
// the function's own types and installs the loop.
#pragma once
#include "emulator/ptx/decode.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

template <auto F>
struct LaneOp;

template <class D, class... A, D (*F)(A...)>
struct LaneOp<F> {
  template <size_t... I>
  static void run_with(Warp& warp, const Instruction& in, uint32_t mask, std::index_sequence<I...>) {
    Slot<D>* d = warp.out<D>(in.args[0]);
    std::tuple<const Slot<A>*...> a(warp.in<A>(in.args[I + 1])...);
    for_lanes(mask, [&](int lane) { d[lane] = to_slot<D>(F(from_slot<A>(std::get<I>(a)[lane])...)); });
  }
  static void run(Warp& warp, const Instruction& in, uint32_t mask) { run_with(warp, in, mask, std::index_sequence_for<A...>()); }
  static void decode(Decoder& d) {
    d.expect_operands(sizeof...(A) + 1, sizeof...(A) + 1);
    d.in.args[0] = d.dest(d.operands[0], sizeof(D));
    size_t i = 1;
    ((d.in.args[i] = d.source(d.operands[i], sizeof(A)), ++i), ...);
    d.in.run = run;
  }
};

/// d = F(a, b, ...) for each lane.
template <auto F>
bool lanes(Decoder& d, InstructionClass category) {
  d.in.category = category;
  LaneOp<F>::decode(d);
  return true;
}

}  // namespace bireal::ptx
