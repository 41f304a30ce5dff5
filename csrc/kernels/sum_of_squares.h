// The sum of squares of a block, for the L2 penalty and the global norm: in double, where a float's square is exact.
#pragma once

#include "kernels/half.h"

namespace pyreg {
namespace {

// A group of doubles, from elements of another type. gcc vectorises the loops; it would convert vectors in halves.
PYREG_INLINE void load_group(const float* group, double* wide) {
  for (int i = 0; i < Group<double>::kCount; ++i) wide[i] = static_cast<double>(group[i]);
}
template <typename S>
PYREG_INLINE void load_group(const S* group, double* wide) {
  float floats[Group<double>::kCount];
  PYREG_UNROLL
  for (int i = 0; i < Group<double>::kCount; i += kFloats) {
    const Floats vector = widen_in_order(S{}, group + i);
    std::memcpy(floats + i, &vector, sizeof vector);
  }
  load_group(floats, wide);
}

// Of x * scale; scale is 1 but for float64.
template <typename S>
double sum_of_squares(int64_t n, const S* x, [[maybe_unused]] double scale) {
  constexpr int kCount = Group<double>::kCount, kWidth = Group<double>::kWidth, kFetch = 2048;
  Accumulators<double> sum;
  const auto add = [&](const S* group) PYREG_LAMBDA {
    double wide[kCount];
    if constexpr (!std::is_same_v<S, double>) load_group(group, wide);
    PYREG_UNROLL
    for (int k = 0; k < Group<double>::kVecs; ++k) {
      typename Native<double>::vec value;
      if constexpr (std::is_same_v<S, double>) {
        std::memcpy(&value, group + k * kWidth, sizeof value);
        value *= scale;
      } else {
        std::memcpy(&value, wide + k * kWidth, sizeof value);
      }
      sum.v[k] += value * value;
    }
  };
  int64_t at = 0;
  for (; at + kCount <= n; at += kCount) {
    __builtin_prefetch(reinterpret_cast<const char*>(x + at) + kFetch, 0, 2);
    add(x + at);
  }
  if (at < n) {
    S tail[kCount] = {};
    for (int64_t i = at; i < n; ++i) tail[i - at] = x[i];
    add(tail);
  }
  return sum.sum();
}

}  // namespace
}  // namespace pyreg
