// Sums over rows, in two steps. The error of a sum grows with the number of additions that a term goes through: in a
// block of 64 rows they are 8 + 8 at most, not 64.
//
//   for each row:
//     inner <- inner + row
//     after kInnerRows rows, and after the last one:   total <- total + inner,  inner <- 0
//
// Each chunk of `inner` is added to the total while it is in the first-level cache.
#pragma once

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

constexpr int64_t kInnerRows = 8;

template <typename T>
PYREG_NOINLINE void add_inner(const ColumnSum<T>& sum, const MovedChunk& chunk, int64_t lead) {
  T *const total = sum.total, *const inner = sum.inner;
  each_vector_from_line<T>(chunk.begin, chunk.end, lead, [&](auto vector) PYREG_LAMBDA {
    vector.store(total, vector.load(total) + vector.load(inner));
    vector.store(inner, typename Native<T>::vec{});
  });
}

template <typename T>
class RowAdder {
 public:
  // Starts the sum of `rows` rows of n.
  RowAdder(int64_t rows, int64_t n, const ColumnSum<T>& sum) : sum_(sum), rows_(rows), n_(n) {
    for (int64_t i = 0; sum.total && i < n; ++i) sum.total[i] = 0;
    for (int64_t i = 0; sum.inner && i < n; ++i) sum.inner[i] = 0;
  }

  // What the row is to be added to; null if there is no sum.
  PYREG_INLINE T* inner() const { return sum_.inner; }

  // Called when the row's chunk begin, ..., end - 1, moved by `lead`, is added.
  PYREG_INLINE void end_chunk(int64_t begin, int64_t end, int64_t lead) const {
    if (sum_.total && (row_ % kInnerRows == 0 || row_ == rows_))
      add_inner(sum_, MovedChunk(begin, end, n_, lead), lead);
  }

  // Called when all of the row is added.
  PYREG_INLINE void end_row() { ++row_; }

 private:
  ColumnSum<T> sum_;
  int64_t rows_, n_;
  int64_t row_ = 1;  // the row that is being added, counted from 1
};

}  // namespace
}  // namespace pyreg
