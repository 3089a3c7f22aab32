// Counts heap allocations of the whole process - our code, the C++ library, oneDNN, OpenMP - for tests that a step makes none.
#pragma once
#include <cstdint>

namespace bireal::testing {

struct Allocations {
  int64_t calls = 0;       // of malloc, calloc, realloc, the aligned ones, and so of operator new
  int64_t bytes = 0;       // asked for
  int64_t live = 0;        // allocations less frees, within oneDNN too
  int64_t most_bytes = 0;  // the largest one
  // Within a call of oneDNN's execution, which makes small objects for itself whatever the caller does: not in the above.
  int64_t library_calls = 0;
  int64_t library_most_bytes = 0;
};

/// Of all threads since the last reset_allocations(). allocations_test.cpp shows that it counts.
Allocations allocations();
void reset_allocations();

}  // namespace bireal::testing
