// Whether every element of an array, times a scale, is neither infinite nor NaN.
#pragma once

#include "kernels/stored.h"

namespace pyreg {
namespace {

template <typename T, Precision kPrecision>
PYREG_NOINLINE bool all_are_finite(int64_t n, const Stored& x, T scale) {
  using V = typename Native<T>::vec;
  V sum[2] = {};  // 0, or NaN from the first element on that is not finite
#pragma GCC unroll 2
  for (int64_t at = 0; at < n; at += TwoVectors<T>::kCount) {
    const auto two = load_two<kPrecision, T>(x, at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) sum[k] += scale * two.v[k] * T{0};
  }
  const V all = sum[0] + sum[1];
  bool finite = true;
  for (int i = 0; i < Group<T>::kWidth; ++i) finite &= all[i] == 0;
  return finite;
}

template <typename T>
bool all_finite(int64_t n, const Stored& x, T scale) {
  if constexpr (kMayMix<T>)
    if (x.type != kTypeOf<T>) return all_are_finite<T, Precision::other>(n, x, scale);
  return all_are_finite<T, Precision::same>(n, x, scale);
}

}  // namespace
}  // namespace pyreg
