// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450), forward and backward over rows of n.
//
//   forward   xhat = (x - mean) * rstd,  rstd = 1 / sqrt(var + eps),  y = xhat * weight + bias
//   backward  g = dy * weight,  dx = (g - mean(g) - xhat * mean(g * xhat)) * rstd
//             dweight = sum over rows of dy * xhat,  dbias = sum over rows of dy
//
// A row's mean is held as shift + lo: shift is a T near the mean, lo what is missing, the mean of x - shift. So a
// float32 row around 1e6 is normalised as well as one around 0.
#pragma once

#include "kernels/row_stream.h"
#include "kernels/row_sums.h"

namespace pyreg {
namespace {

// The mean of a row, as shift + lo, and its variance: from one pass over the row, about the mean of its first group
// of lanes (shifted data: Chan, Golub and LeVeque, 1983, section 3). Where that turns out to be more than a standard
// deviation from the row's mean, a second pass is made about the mean: the corrected two-pass algorithm, their eq. 1.7.
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
        fetch_ahead(vector, x);
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
PYREG_INLINE RowFactors<T> row_factors(int64_t n, const T* x, RowMoments<T>& moments, double eps, T* y,
                                       double* mean, T* rstd) {
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

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T, bool kWeight, bool kBias, bool kStream>
void layer_norm_forward_rows(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                             double eps, T* y, double* mean, T* rstd) {
  RowStream<T> stream;
  RowMoments<T> moments;
  if (rows > 0) {
    moments.start(n, x);
    moments.add_row();
  }
  for (int64_t row = 0; row < rows; ++row, x += n, y += n) {
    moments.finish();
    const RowFactors<T> factors =
        row_factors(n, x, moments, eps, y, mean ? mean + row : nullptr, rstd ? rstd + row : nullptr);
    const bool more = row + 1 < rows;
    if (more) moments.start(n, x + n);
    if constexpr (kStream) stream.begin(y);
    const int64_t lead = to_next_line(y);
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) moments.add(begin, end);
      const auto [source, shift, lo, inverse] = factors;
      each_vector_from_line<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        auto value = ((vector.load(source) - shift) - lo) * inverse;
        if constexpr (kWeight) value = value * vector.load(weight);
        if constexpr (kBias) value = value + vector.load(bias);
        if constexpr (kStream)
          stream.store(vector, value);
        else
          vector.store(y, value);
      });
    });
    if constexpr (kStream) stream.end(n);
  }
  if constexpr (kStream) stream.finish();
}

// weight and bias may each be null.
template <typename T>
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                        double eps, T* y, double* mean, T* rstd, bool stream) {
  stream = stream && rows > 0 && RowStream<T>::takes_rows_of(n);
  const auto choose = [&](auto has_weight, auto has_bias) PYREG_LAMBDA {
    constexpr bool kWeight = has_weight.value, kBias = has_bias.value;
    const auto run = stream ? layer_norm_forward_rows<T, kWeight, kBias, true>
                            : layer_norm_forward_rows<T, kWeight, kBias, false>;
    run(rows, n, x, weight, bias, eps, y, mean, rstd);
  };
  if (weight)
    bias ? choose(Constant<true>{}, Constant<true>{}) : choose(Constant<true>{}, Constant<false>{});
  else
    bias ? choose(Constant<false>{}, Constant<true>{}) : choose(Constant<false>{}, Constant<false>{});
}

// What the backward pass knows of a row, from one pass over it.
template <typename T, bool kWeight>
class RowGradient {
 public:
  using vec = typename Native<T>::vec;

  PYREG_INLINE void start(int64_t n, const T* dy, const T* x, double mean, T rstd, const T* weight) {
    n_ = n, dy_ = dy, x_ = x, weight_ = weight;
    shift_ = static_cast<T>(mean);
    lo_ = static_cast<T>(mean - static_cast<double>(shift_));
    rstd_ = rstd;
    sums_.start();
  }

  PYREG_INLINE void add(int64_t begin, int64_t end) {
    sums_.add(end, n_, [&](Lanes<T>& g_lanes, Lanes<T>& g_xhat_lanes) PYREG_LAMBDA {
      const RowGradient row = *this;
      each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
        auto g = vector.load(row.dy_);
        if constexpr (kWeight) g = g * vector.load(row.weight_);
        g_lanes.v[vector.k] += g;
        g_xhat_lanes.v[vector.k] += vector.only_row(g * row.xhat(vector.load(row.x_)));
        fetch_ahead(vector, row.dy_);
        fetch_ahead(vector, row.x_);
      });
    });
  }

  PYREG_INLINE void add_row() {
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA { add(begin, end); });
  }

  // When the row is added.
  PYREG_INLINE void finish() {
    mean_g_ = static_cast<T>(sums_.a() / static_cast<double>(n_));
    mean_g_xhat_ = static_cast<T>(sums_.b() / static_cast<double>(n_));
  }

  PYREG_INLINE vec xhat(vec x) const { return ((x - shift_) - lo_) * rstd_; }
  PYREG_INLINE vec dx(vec g, vec xhat) const { return ((g - mean_g_) - xhat * mean_g_xhat_) * rstd_; }

 private:
  int64_t n_;
  const T *dy_, *x_, *weight_;
  T shift_, lo_, rstd_, mean_g_, mean_g_xhat_;
  RowSums<T> sums_;
};

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), or null where !kWeight. dweight, dbias (n): the
// sums over these rows. dx may be dy or x.
template <typename T, bool kWeight, bool kStream>
void layer_norm_backward_rows(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                              const T* rstd, const T* weight, T* dx, T* dweight, T* dbias) {
  if constexpr (kWeight)
    for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  RowStream<T> stream;
  RowGradient<T, kWeight> next;
  if (rows > 0) {
    next.start(n, dy, x, mean[0], rstd[0], weight);
    next.add_row();
  }
  for (int64_t at = 0; at < rows; ++at, dy += n, x += n, dx += n) {
    next.finish();
    const RowGradient<T, kWeight> row = next;
    const bool more = at + 1 < rows;
    if (more) next.start(n, dy + n, x + n, mean[at + 1], rstd[at + 1], weight);
    if constexpr (kStream) stream.begin(dx);
    const int64_t lead = to_next_line(kWeight && !kStream ? dweight : dx);
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) next.add(begin, end);
      each_vector_from_line<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        const auto dy_i = vector.load(dy), xhat = row.xhat(vector.load(x));
        auto g = dy_i;
        if constexpr (kWeight) {
          g = g * vector.load(weight);
          vector.store(dweight, vector.load(dweight) + dy_i * xhat);
          vector.store(dbias, vector.load(dbias) + dy_i);
        }
        if constexpr (kStream)
          stream.store(vector, row.dx(g, xhat));
        else
          vector.store(dx, row.dx(g, xhat));
      });
    });
    if constexpr (kStream) stream.end(n);
  }
  if constexpr (kStream) stream.finish();
}

// weight, and with it dweight and dbias, may be null.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                         const T* rstd, const T* weight, T* dx, T* dweight, T* dbias, bool stream) {
  stream = stream && rows > 0 && RowStream<T>::takes_rows_of(n);
  const auto run = weight ? (stream ? layer_norm_backward_rows<T, true, true>
                                    : layer_norm_backward_rows<T, true, false>)
                          : (stream ? layer_norm_backward_rows<T, false, true>
                                    : layer_norm_backward_rows<T, false, false>);
  run(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias);
}

}  // namespace
}  // namespace pyreg
