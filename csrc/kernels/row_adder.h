// Sums over rows, in two steps. The error of a sum grows with the number of additions that a term goes through: in a
// block of 64 rows they are 16 + 4 at most, not 64.
//
//   for each row:
//     inner <- inner + row
//     after kInnerRows rows, and after the last one:   total <- total + inner,  inner <- 0
//
// The first of these sums is made in the total's own place.
#pragma once

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

constexpr int64_t kInnerRows = 16;

template <typename T>
PYREG_NOINLINE void add_inner(int64_t n, T* __restrict total, T* __restrict inner) {
  for (int64_t i = 0; i < n; ++i) {
    total[i] += inner[i];
    inner[i] = 0;
  }
}

template <typename S>
class RowAdder {
  using T = Compute<S>;

 public:
  // Starts the sum of `rows` rows of n.
  RowAdder(int64_t rows, int64_t n, const ColumnSum<T>& sum)
      : sum_(sum), rows_(rows), n_(parameter_elements<S>(n)), target_(sum.total ? sum.total : sum.inner) {
    if (target_) std::memset(target_, 0, n_ * sizeof(T));
  }

  // What the row is to be added to, (n). If no sum is wanted: scratch that may be written, or null.
  PYREG_INLINE T* target() const { return target_; }

  // Called when all of the row is added.
  PYREG_INLINE void end_row() {
    if (sum_.total && (row_ % kInnerRows == 0 || row_ == rows_)) end_inner();
    ++row_;
  }

 private:
  void end_inner() {
    if (target_ == sum_.inner) return add_inner(n_, sum_.total, sum_.inner);
    if (row_ == rows_) return;
    target_ = sum_.inner;
    std::memset(target_, 0, n_ * sizeof(T));
  }

  ColumnSum<T> sum_;
  int64_t rows_, n_;
  T* target_;
  int64_t row_ = 1;  // the row that is being added, counted from 1
};

}  // namespace
}  // namespace pyreg
