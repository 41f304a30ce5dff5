// Sums over rows, in two steps. The error of a sum grows with the number of additions that a term goes through: in a
// block of 64 rows they are 8 + 8 at most, not 64.
//
//   for each row:
//     inner <- inner + row
//     after kInnerRows rows, and after the last one:   total <- total + inner,  inner <- 0
#pragma once

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

constexpr int64_t kInnerRows = 8;

template <typename T>
PYREG_NOINLINE void add_inner(int64_t n, T* __restrict total, T* __restrict inner) {
  for (int64_t i = 0; i < n; ++i) {
    total[i] += inner[i];
    inner[i] = 0;
  }
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

  // Called when all of the row is added.
  PYREG_INLINE void end_row() {
    if (sum_.total && (row_ % kInnerRows == 0 || row_ == rows_)) add_inner(n_, sum_.total, sum_.inner);
    ++row_;
  }

 private:
  ColumnSum<T> sum_;
  int64_t rows_, n_;
  int64_t row_ = 1;  // the row that is being added, counted from 1
};

}  // namespace
}  // namespace pyreg
