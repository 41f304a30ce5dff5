// What stands for an operand that is left out, so that there is one kernel with it and none without.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace pyreg {

// Rows of n as they are given, or else one row for all of them that changes nothing: zeros that are added (of the
// sign that leaves -0 as it is) or ones.
template <typename T>
class RowsOrNeutral {
 public:
  RowsOrNeutral(const T* given, int64_t n, double neutral) : rows_(given), step_(given ? n : 0) {
    if (given) return;
    memory_.reset(new T[n]);
    std::fill_n(memory_.get(), n, static_cast<T>(neutral));
    rows_ = memory_.get();
  }

  const T* from(int64_t row) const { return rows_ + row * step_; }
  int64_t step() const { return step_; }

 private:
  const T* rows_;
  int64_t step_;
  std::unique_ptr<T[]> memory_;
};

constexpr double kAddsNothing = -0.0, kMultipliesByOne = 1;

}  // namespace pyreg
