// Neutral values for operands that are left out. A kernel then needs no second version without the operand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "arguments.h"

namespace pyreg {

// Adding -0 leaves -0 as it is; adding +0 would turn it into +0.
constexpr double kAddsNothing = -0.0, kMultipliesByOne = 1;

constexpr int64_t kShortRow = 1024;

template <typename T>
struct ShortRow {
  T element[kShortRow];

  constexpr explicit ShortRow(double value) : element() {
    for (T& e : element) e = static_cast<T>(value);
  }
};

// A row of n neutral values. A short one needs no memory of its own.
template <typename T>
class NeutralRow {
 public:
  NeutralRow(int64_t n, double neutral) : row_(neutral == kMultipliesByOne ? kOnes.element : kZeros.element) {
    if (n <= kShortRow) return;
    memory_.reset(new T[n]);
    std::fill_n(memory_.get(), n, static_cast<T>(neutral));
    row_ = memory_.get();
  }

  const T* get() const { return row_; }

 private:
  static constexpr ShortRow<T> kOnes{kMultipliesByOne}, kZeros{kAddsNothing};

  const T* row_;
  std::unique_ptr<T[]> memory_;
};

// The given rows of n, or one neutral row in place of all of them. If there are no rows, nothing reads it.
template <typename T>
class RowsOrNeutral {
 public:
  RowsOrNeutral(const T* given, const Rows& rows, double neutral)
      : neutral_(given || rows.count == 0 ? 0 : rows.n, neutral),
        rows_(given ? given : neutral_.get()),
        step_(given ? rows.n : 0) {}

  const T* from(int64_t row) const { return rows_ + row * step_; }
  int64_t step() const { return step_; }

 private:
  NeutralRow<T> neutral_;
  const T* rows_;
  int64_t step_;
};

}  // namespace pyreg
