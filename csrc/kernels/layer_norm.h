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
#include "kernels/row_stream.h"

namespace pyreg {
namespace {

// Elements of a row that are summed in T; the sums of such blocks are added in double. A long row around 1e6
// would lose its mean otherwise, and any long row its variance.
constexpr int64_t kSumBlock = 4096;

// take(start, count) for each such block of a row of n.
template <typename Take>
PYREG_INLINE void each_sum_block(int64_t n, Take take) {
  for (int64_t start = 0; start < n; start += kSumBlock)
    take(start, n - start < kSumBlock ? n - start : kSumBlock);
}

template <typename T>
PYREG_INLINE double row_sum(int64_t n, const T* x) {
  double total = 0;
  each_sum_block(n, [&](int64_t start, int64_t count) PYREG_LAMBDA {
    Lanes<T> sum;
    const auto body = [&](auto vector) PYREG_LAMBDA { sum.v[vector.k] += vector.load(x + start); };
    each_vector<T>(count, body);
    total += static_cast<double>(sum.sum());
  });
  return total;
}

template <typename T>
struct RowMoments {
  T hi;
  double lo, variance;
};

// The corrected two-pass algorithm (Chan, Golub and LeVeque, 1983, eq. 1.7). The first half of the row at
// `next` is fetched from memory meanwhile.
template <typename T>
PYREG_INLINE RowMoments<T> row_moments(int64_t n, const T* x, const T* next) {
  const double size = static_cast<double>(n);
  const T hi = static_cast<T>(row_sum(n, x) / size);
  double total_d = 0, total_dd = 0;
  each_sum_block(n, [&](int64_t start, int64_t count) PYREG_LAMBDA {
    Lanes<T> sum_d, sum_dd;
    const auto body = [&](auto vector) PYREG_LAMBDA {
      const auto d = vector.only_row(vector.load(x + start) - hi);
      sum_d.v[vector.k] += d;
      sum_dd.v[vector.k] += d * d;
      if (vector.k == 0) __builtin_prefetch(next + (start + vector.at) / 2);
    };
    each_vector<T>(count, body);
    total_d += static_cast<double>(sum_d.sum());
    total_dd += static_cast<double>(sum_dd.sum());
  });
  const double lo = total_d / size, variance = total_dd / size - lo * lo;
  return {hi, lo, variance < 0 ? 0.0 : variance};  // a NaN stays one
}

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

// What takes a row to its xhat: ((source - hi) - lo) * rstd.
template <typename T>
struct RowFactors {
  const T* source;
  T hi, lo, rstd;
};

// The factors of the row x, and its statistics where they are wanted. A row near the ends of T's range is
// written to y, scaled, and y is its source then.
template <typename T>
PYREG_INLINE RowFactors<T> row_factors(int64_t n, const T* x, const T* next, double eps, T* y,
                                       double* mean, T* rstd) {
  RowMoments<T> moments = row_moments(n, x, next);
  const T* source = x;
  double scale = 1;
  // Squares that overflowed or underflowed (or a NaN): again, with the row brought near 1.
  if (!(moments.variance + eps >= tiny<T> && moments.variance < __builtin_inf())) {
    scale = row_scale(n, x, eps);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * static_cast<T>(scale);
    source = y;
    moments = row_moments(n, source, next);
  }
  double inverse = 1 / __builtin_sqrt(moments.variance + eps * scale * scale);
  if (mean) *mean = (static_cast<double>(moments.hi) + moments.lo) / scale;
  if (rstd) *rstd = static_cast<T>(inverse * scale);
  // Beyond it all deviations from the mean are 0, and are to stay 0 when multiplied.
  if (inverse > largest_finite<T>) inverse = largest_finite<T>;
  return {source, moments.hi, static_cast<T>(moments.lo), static_cast<T>(inverse)};
}

// y of one row. The second half of the row at `next` is fetched from memory meanwhile.
template <typename T, bool kWeight, bool kBias, bool kStream>
PYREG_INLINE void normalize_row(int64_t n, const RowFactors<T>& row, const T* weight, const T* bias,
                                T* y, const T* next, RowStream<T, 1>& stream) {
  if constexpr (kStream) stream.begin(0, y);
  const auto body = [&](auto vector) PYREG_LAMBDA {
    auto value = ((vector.load(row.source) - row.hi) - row.lo) * row.rstd;
    if constexpr (kWeight) value = value * vector.load(weight);
    if constexpr (kBias) value = value + vector.load(bias);
    if constexpr (kStream)
      stream.store(0, vector, value);
    else
      vector.store(y, value);
    if (vector.k == 0) __builtin_prefetch(next + (n + vector.at) / 2);
  };
  each_vector<T>(n, body, to_next_line(y));
  if constexpr (kStream) stream.end(n);
}

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T, bool kWeight, bool kBias, bool kStream>
void layer_norm_forward_rows(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                             double eps, T* y, double* mean, T* rstd) {
  RowStream<T, 1> stream;
  for (int64_t row = 0; row < rows; ++row, x += n, y += n) {
    const T* next = row + 1 < rows ? x + n : x;
    const RowFactors<T> factors = row_factors(n, x, next, eps, y, mean ? mean + row : nullptr,
                                              rstd ? rstd + row : nullptr);
    normalize_row<T, kWeight, kBias, kStream>(n, factors, weight, bias, y, next, stream);
  }
  if constexpr (kStream) stream.finish();
}

// weight and bias may each be null.
template <typename T>
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias,
                        double eps, T* y, double* mean, T* rstd, bool stream) {
  stream = stream && rows > 0 && RowStream<T, 1>::takes_rows_of(n);
  const auto choose = [&](auto has_weight, auto has_bias) PYREG_LAMBDA {
    constexpr bool kWeight = has_weight.value, kBias = has_bias.value;
    const auto run = stream ? layer_norm_forward_rows<T, kWeight, kBias, true>
                            : layer_norm_forward_rows<T, kWeight, kBias, false>;
    run(rows, n, x, weight, bias, eps, y, mean, rstd);
  };
  if (weight)
    bias ? choose(Flag<true>{}, Flag<true>{}) : choose(Flag<true>{}, Flag<false>{});
  else
    bias ? choose(Flag<false>{}, Flag<true>{}) : choose(Flag<false>{}, Flag<false>{});
}

// What the backward pass knows of a row.
template <typename T>
struct RowGradient {
  T hi, lo, rstd, mean_g, mean_g_xhat;

  using vec = typename Native<T>::vec;
  PYREG_INLINE vec xhat(vec x) const { return ((x - hi) - lo) * rstd; }
};

template <typename T, bool kWeight>
PYREG_INLINE RowGradient<T> row_gradient(int64_t n, const T* dy, const T* x, double mean, T rstd,
                                         const T* weight) {
  const T hi = static_cast<T>(mean);
  RowGradient<T> row{hi, static_cast<T>(mean - static_cast<double>(hi)), rstd, 0, 0};
  double total_g = 0, total_g_xhat = 0;
  each_sum_block(n, [&](int64_t start, int64_t count) PYREG_LAMBDA {
    Lanes<T> sum_g, sum_g_xhat;
    const auto body = [&](auto vector) PYREG_LAMBDA {
      auto g = vector.load(dy + start);
      if constexpr (kWeight) g = g * vector.load(weight + start);
      sum_g.v[vector.k] += g;
      sum_g_xhat.v[vector.k] += vector.only_row(g * row.xhat(vector.load(x + start)));
    };
    each_vector<T>(count, body);
    total_g += static_cast<double>(sum_g.sum());
    total_g_xhat += static_cast<double>(sum_g_xhat.sum());
  });
  row.mean_g = static_cast<T>(total_g / static_cast<double>(n));
  row.mean_g_xhat = static_cast<T>(total_g_xhat / static_cast<double>(n));
  return row;
}

// Rows that the backward pass takes through the columns together, so that dweight and dbias are
// loaded and stored once for all of them. Their order of addition is that of the rows.
constexpr int kTileRows = 2;

// dy, x, dx (kRows, n); mean, rstd (kRows); weight (n). Adds to dweight, dbias (n). Of a large array, whose dx
// is streamed, the kRows rows behind are fetched from memory meanwhile.
template <bool kWeight, bool kStream, typename T, int kRows>
PYREG_INLINE void backward_tile(int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                                const T* weight, T* dx, T* dweight, T* dbias,
                                RowStream<T, kRows>& stream) {
  RowGradient<T> row[kRows];
  for (int r = 0; r < kRows; ++r) {
    if constexpr (kStream) stream.begin(r, dx + r * n);
    row[r] = row_gradient<T, kWeight>(n, dy + r * n, x + r * n, mean[r], rstd[r], weight);
  }
  const auto body = [&](auto vector) PYREG_LAMBDA {
    typename Native<T>::vec w, dw, db;
    if constexpr (kWeight) {
      w = vector.load(weight);
      dw = vector.load(dweight);
      db = vector.load(dbias);
    }
    PYREG_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (kStream && vector.k * kVectorBytes % kLineBytes == 0) {
        __builtin_prefetch(dy + (kRows + r) * n + vector.at);
        __builtin_prefetch(x + (kRows + r) * n + vector.at);
      }
      const auto dy_r = vector.load(dy + r * n);
      const auto xhat = row[r].xhat(vector.load(x + r * n));
      auto g = dy_r;
      if constexpr (kWeight) {
        g = g * w;
        dw += dy_r * xhat;
        db += dy_r;
      }
      const auto dx_r = ((g - row[r].mean_g) - xhat * row[r].mean_g_xhat) * row[r].rstd;
      if constexpr (kStream)
        stream.store(r, vector, dx_r);
      else
        vector.store(dx + r * n, dx_r);
    }
    if constexpr (kWeight) {
      vector.store(dweight, dw);
      vector.store(dbias, db);
    }
  };
  each_vector<T>(n, body, to_next_line(dx));
  if constexpr (kStream) stream.end(n);
}

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), or null where !kWeight. dweight, dbias (n): the
// sums over these rows. dx may be dy or x.
template <typename T, bool kWeight, bool kStream>
void layer_norm_backward_rows(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                              const T* rstd, const T* weight, T* dx, T* dweight, T* dbias) {
  if constexpr (kWeight)
    for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  int64_t row = 0;
  const auto take = [&](auto& stream, int64_t until, int64_t step) PYREG_LAMBDA {
    if (row == until) return;
    for (; row < until; row += step)
      backward_tile<kWeight, kStream>(n, dy + row * n, x + row * n, mean + row, rstd + row, weight,
                                      dx + row * n, dweight, dbias, stream);
    if constexpr (kStream) stream.finish();
  };
  RowStream<T, kTileRows> tiles;
  RowStream<T, 1> singles;
  take(tiles, rows / kTileRows * kTileRows, kTileRows);
  take(singles, rows, 1);
}

// weight, and with it dweight and dbias, may be null.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean,
                         const T* rstd, const T* weight, T* dx, T* dweight, T* dbias, bool stream) {
  // The rows of a tile are streamed side by side: where one starts a line, the others have to as well.
  stream = stream && n * sizeof(T) % kLineBytes == 0 && RowStream<T, kTileRows>::takes_rows_of(n);
  const auto run = weight ? (stream ? layer_norm_backward_rows<T, true, true>
                                    : layer_norm_backward_rows<T, true, false>)
                          : (stream ? layer_norm_backward_rows<T, false, true>
                                    : layer_norm_backward_rows<T, false, false>);
  run(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias);
}

}  // namespace
}  // namespace pyreg
