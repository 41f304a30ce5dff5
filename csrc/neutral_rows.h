// Neutral values for operands that are left out. A kernel then needs no second version without the operand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "kernels/table.h"

namespace pyreg {

// Adding -0 leaves -0 as it is; adding +0 would turn it into +0.
constexpr double kAddsNothing = -0.0, kMultipliesByOne = 1;

constexpr int64_t kShortRow = 1024;

// A neutral value as it is stored.
template <typename E>
constexpr E neutral_as(double value) {
  return {static_cast<E>(value)};
}
template <>
constexpr float32 neutral_as(double value) {
  return {static_cast<float>(value)};
}
template <>
constexpr float16 neutral_as(double value) {
  return {static_cast<uint16_t>(value == kMultipliesByOne ? 0x3c00 : 0x8000)};
}
template <>
constexpr bfloat16 neutral_as(double value) {
  return {static_cast<uint16_t>(value == kMultipliesByOne ? 0x3f80 : 0x8000)};
}

template <typename E>
struct ShortRow {
  E element[kShortRow];

  constexpr explicit ShortRow(double value) : element() {
    for (E& e : element) e = neutral_as<E>(value);
  }
};

// A row of n neutral values. A short one needs no memory of its own.
template <typename E>
class NeutralRow {
 public:
  NeutralRow(int64_t n, double neutral) : row_(neutral == kMultipliesByOne ? kOnes.element : kZeros.element) {
    if (n <= kShortRow) return;
    memory_.reset(new E[n]);
    std::fill_n(memory_.get(), n, neutral_as<E>(neutral));
    row_ = memory_.get();
  }

  const E* get() const { return row_; }

 private:
  static constexpr ShortRow<E> kOnes{kMultipliesByOne}, kZeros{kAddsNothing};

  const E* row_;
  std::unique_ptr<E[]> memory_;
};

}  // namespace pyreg
