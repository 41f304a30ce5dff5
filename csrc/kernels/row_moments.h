// The mean and the variance of a row, and what takes it to its xhat = (x - mean) / sqrt(variance + eps).
//
// The mean is held as shift + lo: shift is a T near the mean, lo what is missing, the mean of x - shift. So a float32
// row around 1e6 is normalised as well as one around 0.
#pragma once

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

// The mean of a row, as shift + lo, and its variance: from one pass over the row, about the mean of its first group
// of lanes (shifted data: Chan, Golub and LeVeque, 1983, section 3). Where that turns out to be more than a standard
// deviation from the row's mean, a second pass is made about it: the corrected two-pass algorithm, their eq. 1.7.
template <typename T>
class RowMoments {
 public:
  T shift;
  double lo, variance;

  // Of the row x of n; nothing is added yet.
  PYREG_INLINE void start(int64_t n, const T* x) {
    constexpr int kGroup = Lanes<T>::kCount;
    const int64_t count = n < kGroup ? n : kGroup;
    Lanes<T> first;
    each_vector<T>(0, count, [&](auto vector) PYREG_LAMBDA { first.v[vector.k] += vector.load(x); });
    start_about(n, x, static_cast<T>(static_cast<double>(first.sum()) / static_cast<double>(count)));
  }

  PYREG_INLINE void add(int64_t begin, int64_t end) {
    sums_.add(end, n_, [&](Lanes<T>& d_lanes, Lanes<T>& dd_lanes) PYREG_LAMBDA {
      const T* const x = x_;
      const T about = shift;
      each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
        const auto d = vector.only_row(vector.load(x) - about);
        d_lanes.v[vector.k] += d;
        dd_lanes.v[vector.k] += d * d;
        fetch_row(vector, x);
      });
    });
  }

  PYREG_INLINE void add_row() {
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA { add(begin, end); });
  }

  // When the row is added.
  PYREG_INLINE void finish() {
    divide();
    if (lo * lo > variance) {
      start_about(n_, x_, static_cast<T>(static_cast<double>(shift) + lo));
      add_row();
      divide();
    }
  }

 private:
  PYREG_INLINE void start_about(int64_t n, const T* x, T about) {
    n_ = n, x_ = x, shift = about;
    sums_.start();
  }

  PYREG_INLINE void divide() {
    lo = sums_.a() / static_cast<double>(n_);
    variance = sums_.b() / static_cast<double>(n_) - lo * lo;
    if (variance < 0) variance = 0;  // a NaN stays one
  }

  int64_t n_;
  const T* x_;
  RowSums<T> sums_;
};

// Below `tiny`, squared deviations have lost bits to underflow.
template <typename T>
constexpr double tiny = sizeof(T) == 4 ? 0x1p-100 : 0x1p-900;

template <typename T>
constexpr double largest_finite = sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__;

// The power of two that brings the largest |x| of a row, or the root of eps where that is larger, into [1, 2),
// as near as T allows.
template <typename T>
double row_scale(int64_t n, const T* x, double eps) {
  constexpr double kLimit = sizeof(T) == 4 ? 0x1p126 : 0x1p1022;
  double largest = __builtin_sqrt(eps), scale = 1;
  for (int64_t i = 0; i < n; ++i) {
    const double magnitude = __builtin_fabs(static_cast<double>(x[i]));
    if (magnitude > largest) largest = magnitude;
  }
  while (largest * scale >= 2 && scale > 1 / kLimit) scale /= 2;
  while (largest * scale < 1 && scale < kLimit) scale *= 2;
  return scale;
}

// What takes a row to its xhat: ((source - shift) - lo) * rstd.
template <typename T>
struct RowFactors {
  const T* source;
  T shift, lo, rstd;
};

// The factors of the row x, whose moments are finished, and its statistics where they are wanted. A row near the
// ends of T's range is written to y, scaled, and y is its source then.
template <typename T>
PYREG_INLINE RowFactors<T> row_factors(int64_t n, const T* x, RowMoments<T>& moments, double eps, T* y, double* mean,
                                       T* rstd) {
  const T* source = x;
  double scale = 1;
  // Squares that overflowed or underflowed (or a NaN): again, with the row brought near 1.
  if (!(moments.variance + eps >= tiny<T> && moments.variance < __builtin_inf())) {
    scale = row_scale(n, x, eps);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * static_cast<T>(scale);
    source = y;
    moments.start(n, source);
    moments.add_row();
    moments.finish();
  }
  double inverse = 1 / __builtin_sqrt(moments.variance + eps * scale * scale);
  if (mean) *mean = (static_cast<double>(moments.shift) + moments.lo) / scale;
  if (rstd) *rstd = static_cast<T>(inverse * scale);
  // Beyond it all deviations from the mean are 0, and are to stay 0 when multiplied.
  if (inverse > largest_finite<T>) inverse = largest_finite<T>;
  return {source, moments.shift, static_cast<T>(moments.lo), static_cast<T>(inverse)};
}

}  // namespace
}  // namespace pyreg
