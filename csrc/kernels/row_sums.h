// Sums over a row, taken chunk by chunk: so that the sums of the next row, which comes from memory, can run beside
// what is done with this one, whose result goes there. One after the other they would leave memory idle in turn.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

// Elements of a row that are summed in T; the sums of such blocks are added in double. A long row around 1e6
// would lose its mean otherwise, and any long row its variance.
constexpr int64_t kSumBlock = 4096;
constexpr int64_t kRowChunk = 128;  // elements
static_assert(kSumBlock % kRowChunk == 0 && kRowChunk % Lanes<float>::kCount == 0);

// take(begin, end) for each chunk of a row of n.
template <typename Take>
PYREG_INLINE void each_chunk(int64_t n, Take take) {
  for (int64_t begin = 0; begin < n; begin += kRowChunk) take(begin, n - begin < kRowChunk ? n : begin + kRowChunk);
}

// body(vector) for the vectors of the chunk begin, ..., end - 1 of a row of n, moved on to where the lines of the
// row's result start, which is at `lead`.
template <typename T, typename Body>
PYREG_INLINE void each_vector_from_line(int64_t begin, int64_t end, int64_t n, int64_t lead, Body body) {
  const int64_t moved_end = end == n || end + lead > n ? n : end + lead;
  each_vector<T>(begin == 0 ? 0 : begin + lead, moved_end, body, lead);
}

// Into the first-level cache. Farther ahead was not faster in memory, and slower in cache.
template <typename Vector, typename T>
PYREG_INLINE void fetch_row(Vector vector, const T* row) {
  fetch_ahead<1536, 3>(vector, row);
}

// Two sums over a row: in T over blocks, in double over those.
template <typename T>
class RowSums {
 public:
  PYREG_INLINE void start() { *this = RowSums(); }

  // add(a, b) adds to the lanes of both sums what a chunk that ends at `end`, of a row of n, has for them.
  template <typename Add>
  PYREG_INLINE void add(int64_t end, int64_t n, Add add) {
    Lanes<T> a = a_, b = b_;
    add(a, b);
    if (end == n || end % kSumBlock == 0) {
      total_a_ += static_cast<double>(a.sum());
      total_b_ += static_cast<double>(b.sum());
      a = b = Lanes<T>();
    }
    a_ = a, b_ = b;
  }

  double a() const { return total_a_; }
  double b() const { return total_b_; }

 private:
  Lanes<T> a_, b_;
  double total_a_ = 0, total_b_ = 0;
};

}  // namespace
}  // namespace pyreg
