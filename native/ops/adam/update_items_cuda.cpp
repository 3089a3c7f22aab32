#include <algorithm>
#include <string>

#include "core/error.h"
#include "ops/adam/update_items.h"

namespace bireal::cuda {

// Items of [begin, end), which holds no filter.
static void add_real(std::vector<UpdateItem>& items, int64_t begin, int64_t end, float decay, bool frozen) {
  for (int64_t at = begin; at < end; at += kRealItemCount)
    items.push_back({at, 1, int32_t(std::min<int64_t>(kRealItemCount, end - at)), nullptr, nullptr, decay,
                     WeightGradient::kStraightThrough, frozen});
}

std::vector<UpdateItem> update_items(const std::vector<Segment>& segments, const std::vector<BinaryParameter>& binary,
                                     int64_t count) {
  segments_check(segments.data(), int64_t(segments.size()), count);
  int64_t free_from = 0;
  for (size_t i = 0; i < binary.size(); ++i) {
    const BinaryParameter& b = binary[i];
    weight_binarize_check(b.K, b.taps, b.C);
    const int64_t elements = b.taps * b.C;
    const std::string name = "binary parameter " + std::to_string(i) + " (begin " + std::to_string(b.begin) + ", " +
                             std::to_string(b.K) + " filters of " + std::to_string(elements) + "): ";
    require(b.begin >= free_from, name + "must begin at or after the end of its predecessor, " + std::to_string(free_from));
    require(b.begin <= count && b.K <= (count - b.begin) / elements,
            name + "leaves the buffer of " + std::to_string(count) + " parameters");
    require(b.bits != nullptr && b.alpha != nullptr, name + "needs the addresses of its bits and alpha");
    free_from = b.begin + b.K * elements;
  }

  // The buffer is cut where a segment or a binary parameter begins or ends; the pieces are walked in order.
  std::vector<UpdateItem> items;
  size_t s = 0, i = 0;
  for (int64_t at = 0; at < count;) {
    while (s < segments.size() && segments[s].begin + segments[s].count <= at) ++s;
    while (i < binary.size() && binary[i].begin + binary[i].K * binary[i].taps * binary[i].C <= at) ++i;
    const bool trained = s < segments.size() && segments[s].begin <= at;
    const int64_t segment_end = s == segments.size() ? count
                                : trained            ? segments[s].begin + segments[s].count
                                                     : segments[s].begin;
    const float decay = trained ? float(segments[s].decay) : 0.0f;
    if (i == binary.size() || binary[i].begin > at) {
      const int64_t end = std::min(segment_end, i == binary.size() ? count : binary[i].begin);
      add_real(items, at, end, decay, !trained);
      at = end;
      continue;
    }
    const BinaryParameter& b = binary[i];
    const int64_t elements = b.taps * b.C, end = b.begin + b.K * elements;
    require(end <= segment_end, "binary parameter " + std::to_string(i) + " [" + std::to_string(b.begin) + ", " +
                                    std::to_string(end) + ") is cut by a segment at " + std::to_string(segment_end) +
                                    "; a binary parameter is trained as a whole or frozen as a whole");
    for (int64_t k = 0; k < b.K; ++k)
      items.push_back({b.begin + k * elements, int32_t(b.taps), int32_t(b.C), b.bits + k * b.taps * word_count(b.C), b.alpha + k,
                       decay, b.rule, !trained});
    at = end;
  }
  return items;
}

}  // namespace bireal::cuda
