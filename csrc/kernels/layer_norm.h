// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450), forward and backward over rows of n.
//
//   forward   xhat = (x - mean) * rstd,  rstd = 1 / sqrt(var + eps),  y = xhat * weight + bias
//   backward  g = dy * weight,  dx = (g - mean(g) - xhat * mean(g * xhat)) * rstd
//             dweight = sum over rows of dy * xhat,  dbias = sum over rows of dy
//
// A row's mean is held as hi + lo: hi is the mean as T has it, lo what T's rounding left out, found in
// the pass that sums the squares. So a float32 row around 1e6 is normalised as well as one around 0.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

template <typename T>
struct RowMoments {
  T hi;
  double lo, variance;
};

// The corrected two-pass algorithm (Chan, Golub and LeVeque, 1983, eq. 1.7).
template <typename T>
PYREG_INLINE RowMoments<T> row_moments(int64_t n, const T* x) {
  Lanes<T> sum;
  each_group<T>(n, [&](auto group) PYREG_LAMBDA { sum = sum + group.load(x); });
  const T hi = sum.sum() / static_cast<T>(n);

  Lanes<T> sum_d, sum_dd;
  each_group<T>(n, [&](auto group) PYREG_LAMBDA {
    const Lanes<T> d = group.only_row(group.load(x) - hi);
    sum_d = sum_d + d;
    sum_dd = sum_dd + d * d;
  });
  const double lo = static_cast<double>(sum_d.sum()) / static_cast<double>(n);
  const double variance = static_cast<double>(sum_dd.sum()) / static_cast<double>(n) - lo * lo;
  return {hi, lo, variance < 0 ? 0.0 : variance};  // a NaN stays one
}

// Below `tiny`, squared deviations have lost bits to underflow.
template <typename T>
constexpr double tiny = sizeof(T) == 4 ? 0x1p-100 : 0x1p-900;

template <typename T>
constexpr double largest_finite = sizeof(T) == 4 ? __FLT_MAX__ : __DBL_MAX__;

// The power of two that brings the largest |x| of a row into [1, 2), as near as T allows.
template <typename T>
double row_scale(int64_t n, const T* x) {
  constexpr double kLimit = sizeof(T) == 4 ? 0x1p126 : 0x1p1022;
  double largest = 0, scale = 1;
  for (int64_t i = 0; i < n; ++i) {
    const double magnitude = __builtin_fabs(static_cast<double>(x[i]));
    if (magnitude > largest) largest = magnitude;
  }
  while (largest * scale >= 2 && scale > 1 / kLimit) scale /= 2;
  while (largest * scale < 1 && scale < kLimit) scale *= 2;
  return scale;
}

template <typename T, bool kWeight, bool kBias>
PYREG_INLINE void normalize_row(int64_t n, const T* x, T hi, T lo, T rstd, const T* weight,
                                const T* bias, T* y) {
  each_group<T>(n, [&](auto group) PYREG_LAMBDA {
    Lanes<T> value = ((group.load(x) - hi) - lo) * rstd;
    if constexpr (kWeight) value = value * group.load(weight);
    if constexpr (kBias) value = value + group.load(bias);
    group.store(y, value);
  });
}

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T, bool kWeight, bool kBias>
void layer_norm_forward_rows(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                             double eps, T* y, double* mean, T* rstd) {
  for (int64_t row = 0; row < rows; ++row, x += n, y += n) {
    RowMoments<T> moments = row_moments(n, x);
    const T* source = x;
    double scale = 1;
    // Squares that overflowed or underflowed (or a NaN): again, with the row brought near 1.
    if (!(moments.variance + eps >= tiny<T> && moments.variance < __builtin_inf())) {
      scale = row_scale(n, x);
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * static_cast<T>(scale);
      source = y;
      moments = row_moments(n, source);
    }
    double inverse = 1 / __builtin_sqrt(moments.variance + eps * scale * scale);
    if (mean) mean[row] = (static_cast<double>(moments.hi) + moments.lo) / scale;
    if (rstd) rstd[row] = static_cast<T>(inverse * scale);
    // Beyond it all deviations are 0, and are to stay 0 when multiplied.
    if (inverse > largest_finite<T>) inverse = largest_finite<T>;
    normalize_row<T, kWeight, kBias>(n, source, moments.hi, static_cast<T>(moments.lo),
                                     static_cast<T>(inverse), weight, bias, y);
  }
}

// weight and bias may each be null.
template <typename T>
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                        double eps, T* y, double* mean, T* rstd) {
  const auto run = weight ? (bias ? layer_norm_forward_rows<T, true, true>
                                  : layer_norm_forward_rows<T, true, false>)
                          : (bias ? layer_norm_forward_rows<T, false, true>
                                  : layer_norm_forward_rows<T, false, false>);
  run(rows, n, x, weight, bias, eps, y, mean, rstd);
}

// What the backward pass knows of a row.
template <typename T>
struct RowGradient {
  T hi, lo, rstd, mean_g, mean_g_xhat;

  PYREG_INLINE Lanes<T> xhat(Lanes<T> x) const { return ((x - hi) - lo) * rstd; }
};

template <typename T, bool kWeight>
PYREG_INLINE RowGradient<T> row_gradient(int64_t n, const T* dy, const T* x, double mean, T rstd,
                                         const T* weight) {
  const T hi = static_cast<T>(mean);
  RowGradient<T> row{hi, static_cast<T>(mean - static_cast<double>(hi)), rstd, 0, 0};
  Lanes<T> sum_g, sum_g_xhat;
  each_group<T>(n, [&](auto group) PYREG_LAMBDA {
    Lanes<T> g = group.load(dy);
    if constexpr (kWeight) g = g * group.load(weight);
    sum_g = sum_g + g;
    sum_g_xhat = sum_g_xhat + group.only_row(g * row.xhat(group.load(x)));
  });
  row.mean_g = static_cast<T>(static_cast<double>(sum_g.sum()) / static_cast<double>(n));
  row.mean_g_xhat = static_cast<T>(static_cast<double>(sum_g_xhat.sum()) / static_cast<double>(n));
  return row;
}

// Rows that the backward pass takes through the columns together, so that dweight and dbias are
// loaded and stored once for all of them. Their order of addition is that of the rows.
constexpr int kTileRows = 4;

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), or null where !kWeight. dweight, dbias (n): the
// sums over these rows. dx may be dy or x.
template <typename T, bool kWeight>
void layer_norm_backward_rows(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                              const T* rstd, const T* weight, T* dx, T* dweight, T* dbias) {
  if constexpr (kWeight)
    for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  for (int64_t first = 0; first < rows; first += kTileRows) {
    const int64_t start = first * n;
    const int tile = static_cast<int>(rows - first < kTileRows ? rows - first : kTileRows);
    RowGradient<T> row[kTileRows];
    for (int r = 0; r < tile; ++r)
      row[r] = row_gradient<T, kWeight>(n, dy + start + r * n, x + start + r * n, mean[first + r],
                                        rstd[first + r], weight);
    each_group<T>(n, [&](auto group) PYREG_LAMBDA {
      Lanes<T> w, dw, db;
      if constexpr (kWeight) {
        w = group.load(weight);
        dw = group.load(dweight);
        db = group.load(dbias);
      }
      for (int r = 0; r < tile; ++r) {
        const int64_t offset = start + r * n;
        const Lanes<T> dy_r = group.load(dy + offset);
        const Lanes<T> xhat = row[r].xhat(group.load(x + offset));
        Lanes<T> g = dy_r;
        if constexpr (kWeight) {
          g = g * w;
          dw = dw + dy_r * xhat;
          db = db + dy_r;
        }
        group.store(dx + offset, ((g - row[r].mean_g) - xhat * row[r].mean_g_xhat) * row[r].rstd);
      }
      if constexpr (kWeight) {
        group.store(dweight, dw);
        group.store(dbias, db);
      }
    });
  }
}

// weight, and with it dweight and dbias, may be null.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                         const T* rstd, const T* weight, T* dx, T* dweight, T* dbias) {
  const auto run = weight ? layer_norm_backward_rows<T, true> : layer_norm_backward_rows<T, false>;
  run(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias);
}

}  // namespace
}  // namespace pyreg
