// The sum of squares of a block, for the L2 penalty and the global norm: in double, where a float's square is exact.
#pragma once

#include "kernels/half.h"

namespace pyreg {
namespace {

template <typename S>
double sum_of_squares(int64_t n, const S* x, [[maybe_unused]] double scale) {
  constexpr int kCount = Group<double>::kCount, kWidth = Group<double>::kWidth;
  Accumulators<double> sum;
  const auto add = [&](const S* group) PYREG_LAMBDA {
    double wide[kCount];
    if constexpr (kHalf<S>) {
      float floats[kCount];
      widen_elements(kCount, group, floats);
      for (int i = 0; i < kCount; ++i) wide[i] = static_cast<double>(floats[i]);
    } else {
      for (int i = 0; i < kCount; ++i) wide[i] = static_cast<double>(group[i]);
    }
    PYREG_UNROLL
    for (int k = 0; k < Group<double>::kVecs; ++k) {
      typename Native<double>::vec value;
      std::memcpy(&value, wide + k * kWidth, sizeof value);
      if constexpr (std::is_same_v<S, double>) value *= scale;
      sum.v[k] += value * value;
    }
  };
  int64_t at = 0;
  for (; at + kCount <= n; at += kCount) add(x + at);
  if (at < n) {
    S tail[kCount] = {};
    for (int64_t i = at; i < n; ++i) tail[i - at] = x[i];
    add(tail);
  }
  return sum.sum();
}

}  // namespace
}  // namespace pyreg
