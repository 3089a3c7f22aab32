// mma.sync: D = A B + C on fragments that are spread over the warp.
//
// One layout serves all types: a row of A (a column of B) is a run of 32-bit words, of 32 bits, 4 bytes or 2 half floats each.
// With g = lane / 4 and t = lane % 4, register r of A holds word t + 4 (r / R) of row g + 8 (r % R), R = rows / 8; register r of
// B word t + 4 r of column g; accumulators 2i and 2i + 1 hold columns 2t and 2t + 1 of row g + 8 i. Integers are exact. Floats:
// products and sums in double, rounded once; a GPU's tensor core keeps fewer bits of the partial sums, so compare within a bound
// for the length of the sum.
#include "emulator/ptx/decode.h"
#include "emulator/ptx/half.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

struct Bits {
  static int32_t exclusive(uint32_t a, uint32_t b) { return __builtin_popcount(a ^ b); }
  static int32_t both(uint32_t a, uint32_t b) { return __builtin_popcount(a & b); }
};

template <class A, class B>
int32_t dot_bytes(uint32_t a, uint32_t b) {
  int32_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += int32_t(A(a >> (8 * i))) * int32_t(B(b >> (8 * i)));
  return sum;
}
template <class H>
double dot_halves(uint32_t a, uint32_t b) {
  double low = double(to_float(H{uint16_t(a)})) * double(to_float(H{uint16_t(b)}));
  return low + double(to_float(H{uint16_t(a >> 16)})) * double(to_float(H{uint16_t(b >> 16)}));
}

/// args: D, A, B, C, as many as in.mode (rows of A) and in.count (words of a row) say.
template <auto Dot, bool HalfAccumulator>
void multiply(Warp& warp, const Instruction& in, uint32_t mask) {
  require_full_warp(warp, in, mask, "mma.sync");
  order_lanes(warp, mask);
  using Sum = std::invoke_result_t<decltype(Dot), uint32_t, uint32_t>;
  constexpr bool kInteger = std::is_integral_v<Sum>;
  const int rows = in.mode, words = in.count, row_groups = rows / 8;
  const int d_count = HalfAccumulator ? row_groups : 2 * row_groups, a_count = row_groups * words / 4, b_count = words / 4;
  uint32_t a[16][8], b[8][8];
  for (int r = 0; r < a_count; ++r) {
    const uint32_t* source = warp.in<uint32_t>(in.args[d_count + r]);
    for (int lane = 0; lane < kLanes; ++lane) a[lane / 4 + 8 * (r % row_groups)][lane % 4 + 4 * (r / row_groups)] = source[lane];
  }
  for (int r = 0; r < b_count; ++r) {
    const uint32_t* source = warp.in<uint32_t>(in.args[d_count + a_count + r]);
    for (int lane = 0; lane < kLanes; ++lane) b[lane / 4][lane % 4 + 4 * r] = source[lane];
  }
  Sum sums[16][8];
  auto dot = [&](auto count) {  // known, so that the loop is none
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < 8; ++column) {
        Sum sum = 0;
        for (int w = 0; w < count; ++w) sum += Dot(a[row][w], b[column][w]);
        sums[row][column] = sum;
      }
  };
  if (words == 4)
    dot(std::integral_constant<int, 4>());
  else
    dot(std::integral_constant<int, 8>());
  const int c_first = d_count + a_count + b_count;
  for (int i = 0; i < d_count; ++i) {
    const uint32_t* c = warp.in<uint32_t>(in.args[c_first + i]);
    uint32_t* d = warp.out<uint32_t>(in.args[i]);
    for (int lane = 0; lane < kLanes; ++lane) {
      if constexpr (HalfAccumulator) {
        const Sum* at = &sums[lane / 4 + 8 * i][lane % 4 * 2];
        uint16_t low = narrow<Half>(double(at[0]) + double(to_float(Half{uint16_t(c[lane])}))).bits;
        uint16_t high = narrow<Half>(double(at[1]) + double(to_float(Half{uint16_t(c[lane] >> 16)}))).bits;
        d[lane] = uint32_t(high) << 16 | low;
      } else {
        Sum sum = sums[lane / 4 + 8 * (i / 2)][lane % 4 * 2 + i % 2];
        if constexpr (kInteger)
          d[lane] = uint32_t(sum) + c[lane];
        else
          d[lane] = float_bits(float(sum + double(bits_float(c[lane]))));
      }
    }
  }
}

struct Shape {
  const char* name;
  int rows, k;
};

}  // namespace

bool decode_tensor(Decoder& d) {
  if (d.opcode != "mma") return false;
  static const Shape shapes[] = {{"m8n8k128", 8, 128}, {"m16n8k128", 16, 128}, {"m16n8k256", 16, 256}, {"m16n8k8", 16, 8},
                                 {"m16n8k16", 16, 16}, {"m8n8k16", 8, 16},     {"m16n8k32", 16, 32}};
  for (const char* m : {"sync", "aligned", "row", "col"})
    if (!d.take(m)) d.fail("this form of mma is not supported");
  const Shape* shape = nullptr;
  for (const Shape& s : shapes)
    if (d.take(s.name)) shape = &s;
  if (!shape) d.fail("this shape of mma is not supported");
  // the types of D, A, B and C follow the shape and the layouts
  std::vector<std::string> types;
  for (size_t i = 0; i < d.modifiers.size(); ++i)
    if (type_bytes(d.modifiers[i]) || d.modifiers[i] == "b1") types.push_back(d.modifier(i));
  if (types.size() != 4) d.fail("four types expected");
  std::string key = types[0] + "." + types[1] + "." + types[2] + "." + types[3];
  int bits = 0;
  bool half_accumulator = false;
  Handler run = nullptr;
  if (key == "s32.b1.b1.s32") {
    bits = 1;
    bool both = d.take("and");
    if (!both && !d.take("xor")) d.fail("and or xor expected");
    if (!d.take("popc")) d.fail("popc expected");
    run = both ? multiply<Bits::both, false> : multiply<Bits::exclusive, false>;
  } else if (key == "f32.f16.f16.f32") {
    bits = 16;
    run = multiply<dot_halves<Half>, false>;
  } else if (key == "f32.bf16.bf16.f32") {
    bits = 16;
    run = multiply<dot_halves<Bfloat>, false>;
  } else if (key == "f16.f16.f16.f16") {
    bits = 16;
    half_accumulator = true;
    run = multiply<dot_halves<Half>, true>;
  } else if (key == "s32.s8.s8.s32") {
    bits = 8;
    run = multiply<dot_bytes<int8_t, int8_t>, false>;
  } else if (key == "s32.u8.u8.s32") {
    bits = 8;
    run = multiply<dot_bytes<uint8_t, uint8_t>, false>;
  } else if (key == "s32.u8.s8.s32") {
    bits = 8;
    run = multiply<dot_bytes<uint8_t, int8_t>, false>;
  } else if (key == "s32.s8.u8.s32") {
    bits = 8;
    run = multiply<dot_bytes<int8_t, uint8_t>, false>;
  }
  if (!run) d.fail("these types of mma are not supported");
  int words = shape->k * bits / 32, groups = shape->rows / 8;
  if (words != 4 && words != 8) d.fail("this shape of mma does not exist for its types");
  d.expect_operands(4, 4);
  size_t d_count = size_t(half_accumulator ? groups : 2 * groups);
  size_t expected[4] = {d_count, size_t(groups * words / 4), size_t(words / 4), d_count};
  size_t next = 0;
  for (int part = 0; part < 4; ++part) {
    auto registers = d.vector(d.operands[size_t(part)]);
    if (registers.size() != expected[part])
      d.fail("operand " + std::to_string(part + 1) + " has " + std::to_string(registers.size()) + " registers, expected " +
             std::to_string(expected[part]));
    for (const std::string& r : registers) {
      d.in.args[next] = part == 0 ? d.dest(r, 4) : d.source(r, 4);
      if (!d.in.args[next].present()) d.fail("a register is missing");
      ++next;
    }
  }
  d.in.category = InstructionClass::kTensorCore;
  d.in.mode = uint8_t(shape->rows);
  d.in.count = uint8_t(words);
  d.in.run = run;
  return true;
}

}  // namespace bireal::ptx
