// update_items: the work list of the kernels that walk the flat buffers (finite_norm, adam, sgd): one thread block an item.
//
// An item is a filter of a binary parameter, or up to kRealItemCount elements of anything else. The list covers the whole flat
// buffer, in order: parameters outside every segment are frozen items, which finite_norm counts and the optimizers skip. It is
// made once, while planning, and copied to the device.
#pragma once
#include <stdint.h>

#include "core/bits.h"
#include "ops/adam/adam.h"
#include "ops/weight_binarize/weight_binarize.h"

#ifndef __CUDACC__
#include <vector>
#endif

namespace bireal::cuda {

/// Elements of an item that is not a filter: 16 for each thread of a block of 256.
constexpr int32_t kRealItemCount = 4096;

/// A parameter whose weights are binarized: [K, taps, C] floats from `begin` of the flat buffer, and the device addresses of its
/// bits [K, taps, Cw] and alpha [K].
struct BinaryParameter {
  int64_t begin, K, taps, C;
  WeightGradient rule;
  word_t* bits;
  float* alpha;
};

/// Layout shared by host and kernels; 48 bytes.
struct UpdateItem {
  int64_t begin;    // first element in the flat buffer
  int32_t taps, C;  // taps*C elements; taps = 1 where it is no filter
  word_t* bits;     // of this filter [taps, Cw], or null: no filter
  float* alpha;     // of this filter [1]
  float decay;      // weight decay
  WeightGradient rule;
  int32_t frozen;  // 1: outside every segment
};

#ifndef __CUDACC__
/// Throws InvalidArgument if the segments are wrong (segments_check), if binary parameters are out of order, overlap, leave
/// [0, count) or are taken apart by a segment.
std::vector<UpdateItem> update_items(const std::vector<Segment>& segments, const std::vector<BinaryParameter>& binary,
                                     int64_t count);

#endif

}  // namespace bireal::cuda
