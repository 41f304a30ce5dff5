// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450), forward and backward over rows of n.
//
//   forward   xhat = (x - mean) * rstd,  rstd = 1 / sqrt(var + eps),  y = xhat * weight + bias
//   backward  g = dy * weight,  dx = (g - mean(g) - xhat * mean(g * xhat)) * rstd
//             dweight = sum over rows of dy * xhat,  dbias = sum over rows of dy
#pragma once

#include "kernels/row_moments.h"
#include "kernels/row_stream.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T, bool kWeight, bool kBias, bool kStream>
void layer_norm_forward_rows(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                             double* mean, T* rstd) {
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
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                        double* mean, T* rstd, bool stream) {
  stream = stream && rows > 0 && RowStream<T>::takes_rows_of(n);
  const auto choose = [&](auto has_weight, auto has_bias) PYREG_LAMBDA {
    constexpr bool kWeight = has_weight.value, kBias = has_bias.value;
    const auto run =
        stream ? layer_norm_forward_rows<T, kWeight, kBias, true> : layer_norm_forward_rows<T, kWeight, kBias, false>;
    run(rows, n, x, weight, bias, eps, y, mean, rstd);
  };
  if (weight)
    bias ? choose(Flag<true>{}, Flag<true>{}) : choose(Flag<true>{}, Flag<false>{});
  else
    bias ? choose(Flag<false>{}, Flag<true>{}) : choose(Flag<false>{}, Flag<false>{});
}

// A row of the backward pass.
template <typename T>
struct BackwardRow {
  const T *dy, *x, *weight;
  T shift, lo, rstd;  // the mean as shift + lo

  PYREG_INLINE typename Native<T>::vec xhat(typename Native<T>::vec x_i) const { return ((x_i - shift) - lo) * rstd; }
};

// The means over a row that its dx needs, of g and of g * xhat.
template <typename T, bool kWeight>
class RowGradientMeans {
 public:
  BackwardRow<T> row;
  T mean_g, mean_g_xhat;

  // Nothing is added yet.
  PYREG_INLINE void start(int64_t n, const T* dy, const T* x, double mean, T rstd, const T* weight) {
    const T shift = static_cast<T>(mean);
    row = {dy, x, weight, shift, static_cast<T>(mean - static_cast<double>(shift)), rstd};
    n_ = n;
    sums_.start();
  }

  PYREG_INLINE void add(int64_t begin, int64_t end) {
    sums_.add(end, n_, [&](Lanes<T>& g_lanes, Lanes<T>& g_xhat_lanes) PYREG_LAMBDA {
      const BackwardRow<T> r = row;  // in registers
      each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
        auto g = vector.load(r.dy);
        if constexpr (kWeight) g = g * vector.load(r.weight);
        g_lanes.v[vector.k] += g;
        g_xhat_lanes.v[vector.k] += vector.only_row(g * r.xhat(vector.load(r.x)));
        fetch_row(vector, r.dy);
        fetch_row(vector, r.x);
      });
    });
  }

  PYREG_INLINE void add_row() {
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA { add(begin, end); });
  }

  // When the row is added.
  PYREG_INLINE void finish() {
    mean_g = static_cast<T>(sums_.a() / static_cast<double>(n_));
    mean_g_xhat = static_cast<T>(sums_.b() / static_cast<double>(n_));
  }

 private:
  int64_t n_;
  RowSums<T> sums_;
};

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), or null where !kWeight. dweight, dbias (n): the
// sums over these rows. dx may be dy or x.
template <typename T, bool kWeight, bool kStream>
void layer_norm_backward_rows(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                              const T* weight, T* dx, T* dweight, T* dbias) {
  if constexpr (kWeight)
    for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  RowStream<T> stream;
  RowGradientMeans<T, kWeight> means;
  if (rows > 0) {
    means.start(n, dy, x, mean[0], rstd[0], weight);
    means.add_row();
  }
  for (int64_t row = 0; row < rows; ++row, dx += n) {
    means.finish();
    const BackwardRow<T> r = means.row;
    const T mean_g = means.mean_g, mean_g_xhat = means.mean_g_xhat;
    const bool more = row + 1 < rows;
    if (more) means.start(n, r.dy + n, r.x + n, mean[row + 1], rstd[row + 1], weight);
    if constexpr (kStream) stream.begin(dx);
    const int64_t lead = to_next_line(kWeight && !kStream ? dweight : dx);
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) means.add(begin, end);
      each_vector_from_line<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        const auto dy_i = vector.load(r.dy), xhat = r.xhat(vector.load(r.x));
        auto g = dy_i;
        if constexpr (kWeight) {
          g = g * vector.load(weight);
          vector.store(dweight, vector.load(dweight) + dy_i * xhat);
          vector.store(dbias, vector.load(dbias) + dy_i);
        }
        const auto dx_i = ((g - mean_g) - xhat * mean_g_xhat) * r.rstd;
        if constexpr (kStream)
          stream.store(vector, dx_i);
        else
          vector.store(dx, dx_i);
      });
    });
    if constexpr (kStream) stream.end(n);
  }
  if constexpr (kStream) stream.finish();
}

// weight, and with it dweight and dbias, may be null.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                         const T* weight, T* dx, T* dweight, T* dbias, bool stream) {
  stream = stream && rows > 0 && RowStream<T>::takes_rows_of(n);
  const auto run =
      weight ? (stream ? layer_norm_backward_rows<T, true, true> : layer_norm_backward_rows<T, true, false>)
             : (stream ? layer_norm_backward_rows<T, false, true> : layer_norm_backward_rows<T, false, false>);
  run(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias);
}

}  // namespace
}  // namespace pyreg
