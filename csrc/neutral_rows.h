// What stands for an operand that is left out, so that there is one kernel with it and none without.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace pyreg {

// Zeros that are added, of the sign that leaves -0 as it is; ones.
constexpr double kAddsNothing = -0.0, kMultipliesByOne = 1;

constexpr int64_t kShortRow = 1024;

template <typename T>
struct ShortRow {
  T element[kShortRow];

  constexpr explicit ShortRow(double value) : element() {
    for (T& e : element) e = static_cast<T>(value);
  }
};

// A row of n that changes nothing: a short one stands ready.
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

// Rows of n as they are given, or else one for all of them that changes nothing.
template <typename T>
class RowsOrNeutral {
 public:
  RowsOrNeutral(const T* given, int64_t n, double neutral)
      : neutral_(given ? 0 : n, neutral), rows_(given ? given : neutral_.get()), step_(given ? n : 0) {}

  const T* from(int64_t row) const { return rows_ + row * step_; }
  int64_t step() const { return step_; }

 private:
  NeutralRow<T> neutral_;
  const T* rows_;
  int64_t step_;
};

}  // namespace pyreg
