// The mean and variance of a row, or its mean square, and the factors that turn the row into its
// xhat = (x - mean) / sqrt(variance + eps), or x / sqrt(mean square + eps).
//
// The mean is held as shift + lo: shift is a T near the mean, and lo is the rest, the mean of x - shift. So a float32
// row around 1e6 is normalised as well as one around 0.
#pragma once

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

// Turns the elements of a row into its xhat, for a norm that subtracts the mean.
template <typename T>
struct CentredRow {
  T shift, lo, rstd;

  PYREG_INLINE typename Native<T>::vec xhat(typename Native<T>::vec x) const { return xhat_of_deviation(x - shift); }
  PYREG_INLINE typename Native<T>::vec xhat_of_deviation(typename Native<T>::vec d) const { return (d - lo) * rstd; }
};

// The same for a norm that does not.
template <typename T>
struct UncentredRow {
  T rstd;

  PYREG_INLINE typename Native<T>::vec xhat(typename Native<T>::vec x) const { return x * rstd; }
};

// v, where a vector of a row was loaded: with zeros after the row's end. Floats are loaded like that already.
template <bool kPadded, typename Vector, typename Value>
PYREG_INLINE Value only_row_if(Vector vector, Value v) {
  if constexpr (kPadded) return vector.only_row(v);
  return v;
}

// The mean of a row, as shift + lo, and its variance, from one pass over the row. The shift is the mean of the first
// group of lanes (shifted data: Chan, Golub and LeVeque, 1983, section 3). If it is more than a standard deviation
// from the row's mean, a second pass uses that mean: the corrected two-pass algorithm, their eq. 1.7.
//
// E: the type of the row's elements in memory: S, or T in the order of S's vectors.
template <typename S, typename E = S>
class RowMoments {
  using T = Compute<S>;

 public:
  // Whether x - shift is stored, for the loop that normalises the row. Pairs would have to be widened again.
  static constexpr bool kStoresDeviations = kPaired<S> && std::is_same_v<E, S>;

  // Starts the row x (n). Nothing is added yet. deviations: where they are stored.
  PYREG_INLINE void start(int64_t n, const E* x, T* deviations) {
    constexpr int kGroup = Group<S>::kCount;
    const int64_t count = n < kGroup ? n : kGroup;
    Accumulators<S> first;
    each_vector<S>(0, count, [&](auto vector) PYREG_LAMBDA {
      first.v[vector.k] += only_row_if<kHalf<S>>(vector, vector.load(x));
    });
    start_about(n, x, deviations, static_cast<T>(static_cast<double>(first.sum()) / static_cast<double>(count)));
  }

  template <From kFrom>
  PYREG_INLINE_WIDE void add(int64_t begin, int64_t end) {
    Accumulators<S> sum_d = sum_d_.accumulators(), sum_dd = sum_dd_.accumulators();
    const E* const x = x_;
    T* const deviations = deviations_;
    const T about = shift_;
    each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      auto d = vector.load(x) - about;
      if constexpr (kStoresDeviations) vector.store(deviations, d);
      d = vector.only_row(d);
      sum_d.v[vector.k] += d;
      sum_dd.v[vector.k] += d * d;
      fetch_row<kFrom>(vector, x);
    });
    sum_d_.put(sum_d, end, n_);
    sum_dd_.put(sum_dd, end, n_);
  }

  // Called when the whole row is added.
  PYREG_INLINE void finish() {
    divide();
    if (lo_ * lo_ > variance_) *this = about(n_, x_, deviations_, static_cast<T>(mean()));
  }

  PYREG_INLINE double mean() const { return static_cast<double>(shift_) + lo_; }
  // The value that eps is added to.
  PYREG_INLINE double spread() const { return variance_; }
  PYREG_INLINE CentredRow<T> row(T rstd) const { return {shift_, static_cast<T>(lo_), rstd}; }

 private:
  static PYREG_NOINLINE RowMoments about(int64_t n, const E* x, T* deviations, T shift) {
    RowMoments moments;
    moments.start_about(n, x, deviations, shift);
    add_row(moments, n);
    moments.divide();
    return moments;
  }

  PYREG_INLINE void start_about(int64_t n, const E* x, T* deviations, T shift) {
    n_ = n, x_ = x, deviations_ = deviations, shift_ = shift;
    sum_d_.start();
    sum_dd_.start();
  }

  PYREG_INLINE void divide() {
    lo_ = sum_d_.total() / static_cast<double>(n_);
    variance_ = sum_dd_.total() / static_cast<double>(n_) - lo_ * lo_;
    if (variance_ < 0) variance_ = 0;  // a NaN stays NaN
  }

  int64_t n_;
  const E* x_;
  T* deviations_;
  T shift_;
  double lo_, variance_;
  RowSum<S> sum_d_, sum_dd_;
};

// The mean square of a row.
template <typename S, typename E = S>
class RowMeanSquare {
  using T = Compute<S>;

 public:
  static constexpr bool kStoresDeviations = false;

  PYREG_INLINE void start(int64_t n, const E* x, T*) {
    n_ = n, x_ = x;
    sum_.start();
  }

  template <From kFrom>
  PYREG_INLINE_WIDE void add(int64_t begin, int64_t end) {
    Accumulators<S> sum = sum_.accumulators();
    const E* const x = x_;
    each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      const auto x_i = only_row_if<kHalf<S>>(vector, vector.load(x));
      sum.v[vector.k] += x_i * x_i;
      fetch_row<kFrom>(vector, x);
    });
    sum_.put(sum, end, n_);
  }

  PYREG_INLINE void finish() { mean_square_ = sum_.total() / static_cast<double>(n_); }

  PYREG_INLINE double spread() const { return mean_square_; }
  PYREG_INLINE UncentredRow<T> row(T rstd) const { return {rstd}; }

 private:
  int64_t n_;
  const E* x_;
  double mean_square_;
  RowSum<S> sum_;
};

// Below `tiny`, squares have lost bits to underflow.
template <typename T>
constexpr double tiny = sizeof(T) == 4 ? 0x1p-100 : 0x1p-900;

template <typename T>
constexpr double largest_finite = sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__;

// The power of two that brings the largest |x| of a row, or sqrt(eps) if that is larger, into [1, 2), or as near as
// T's range allows.
template <typename T>
double scale_to_one(int64_t n, const T* x, double eps) {
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

// The finished sums of a row, if nothing else is done meanwhile. Sums are passed by value: if their address were
// known elsewhere, they would not stay in registers.
template <typename Sums, typename E>
PYREG_NOINLINE Sums row_sums(int64_t n, const E* x) {
  Sums sums;
  sums.start(n, x, nullptr);
  add_row(sums, n);
  sums.finish();
  return sums;
}

// The inverse deviation of a row. inverse belongs to the row times `scale`: 1 / sqrt(spread + eps * scale**2).
template <typename T>
struct InverseDeviation {
  double scale, inverse;

  T rstd() const { return static_cast<T>(inverse * scale); }
  // If inverse is beyond T's range, all deviations from the mean are 0, and must stay 0 when they are multiplied.
  T factor() const { return static_cast<T>(inverse > largest_finite<T> ? largest_finite<T> : inverse); }
};

template <typename T, typename Sums>
PYREG_INLINE InverseDeviation<T> inverse_deviation(const Sums& sums, double eps, double scale) {
  return {scale, 1 / __builtin_sqrt(sums.spread() + eps * scale * scale)};
}

// Whether a row must be scaled before it is summed: squares have overflowed or underflowed, or there is a NaN.
template <typename T, typename Sums>
PYREG_INLINE bool needs_scale(const Sums& sums, double eps) {
  return !(sums.spread() + eps >= tiny<T> && sums.spread() < __builtin_inf());
}

// Writes the row x (count), scaled to near 1, to `scaled`. Returns the scale.
template <typename T>
PYREG_INLINE double scale_row(int64_t count, const T* x, double eps, T* scaled) {
  const double scale = scale_to_one(count, x, eps);
  for (int64_t i = 0; i < count; ++i) scaled[i] = x[i] * static_cast<T>(scale);
  return scale;
}

}  // namespace
}  // namespace pyreg
