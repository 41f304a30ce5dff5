// LayerNorm and RMSNorm, forward and backward: one pair of kernels, with the differences in `Norm`.
//
//   forward   xhat = (x - mean) * rstd,  y = xhat * weight + bias
//   backward  g = dy * weight,  dx = (g - mean(g) - xhat * mean(g * xhat)) * rstd
//             dweight = sum over rows of dy * xhat,  dbias = sum over rows of dy
//
// RMSNorm has no mean: mean and mean(g) are left out.
//
// The forward pass: row r + 1 is read from memory while row r is normalised.
//
//   add row 0 to its sums
//   for each row r:
//     mean, rstd <- its sums                                 row_moments.h
//       the row is summed again if the shift was too far from the mean, or if squares overflowed or underflowed;
//       in the second case y <- x * 2**k is summed, and replaces x
//     for each chunk of 128 elements:                        row_sums.h
//       of row r + 1:  [make it from x, mask and residual]   dropout_add_norm.h, row_masks.h
//                      add it to the sums, lane by lane      lanes.h
//                      prefetch some KB ahead
//       of row r:      y <- (x - mean) * rstd * weight + bias, for a chunk that starts on a cache line of y;
//                      with ordinary stores or past the caches: row_writer.h
//
// The backward pass is the same, with the sums of g and g * xhat, and with dx, dweight and dbias (row_adder.h)
// instead of y.
#pragma once

#include "kernels/row_adder.h"
#include "kernels/row_moments.h"
#include "kernels/row_writer.h"

namespace pyreg {
namespace {

template <typename T>
struct LayerNorm {
  using Sums = RowMoments<T>;
  using Row = CentredRow<T>;
  static constexpr bool kCentred = true;

  static PYREG_INLINE Row row(const double* mean, const T* rstd, int64_t i) {
    const T shift = static_cast<T>(mean[i]);
    return {shift, static_cast<T>(mean[i] - static_cast<double>(shift)), rstd[i]};
  }
};

template <typename T>
struct RmsNorm {
  using Sums = RowMeanSquare<T>;
  using Row = UncentredRow<T>;
  static constexpr bool kCentred = false;

  static PYREG_INLINE Row row(const double*, const T* rstd, int64_t i) { return {rstd[i]}; }
};

// The source of the forward pass's rows if they are stored in memory.
template <typename T, bool kNontemporal>
class StoredRows {
 public:
  static constexpr From kFrom = kFromInput<kNontemporal>;

  StoredRows(int64_t n, const T* x) : n_(n), next_(x) {}

  // The next row. Its chunks can be read once they are made, in order.
  PYREG_INLINE const T* start_row() {
    const T* const row = next_;
    next_ += n_;
    return row;
  }
  PYREG_INLINE void make(int64_t, int64_t) {}
  PYREG_INLINE void finish() {}

 private:
  int64_t n_;
  const T* next_;
};

// y (rows, n), which may be the source's array; weight (n); bias (n) if kBias; mean, rstd (rows), or null.
template <typename Norm, bool kBias, bool kNontemporal, typename T, typename Rows>
void norm_forward_rows(int64_t rows, int64_t n, Rows& source, const T* weight, const T* bias, double eps, T* y,
                       double* mean, T* rstd) {
  RowWriter<T, kNontemporal> writer(n, y);
  typename Norm::Sums sums;
  const T* next = nullptr;
  // Row r + 1 is summed while row r is normalised. Starting at -1 keeps the code that sums a row in one place.
  for (int64_t r = -1; r < rows; ++r) {
    const T* x = next;
    typename Norm::Row row{};
    const int64_t lead = writer.lead();
    const bool begun = r >= 0, more = r + 1 < rows;
    if (begun) {
      sums.finish();
      const InverseDeviation<T> deviation = inverse_deviation(n, x, sums, eps, writer.row());
      x = deviation.source;
      row = sums.row(deviation.factor());
      if constexpr (Norm::kCentred)
        if (mean) mean[r] = sums.mean() / deviation.scale;
      if (rstd) rstd[r] = deviation.rstd();
    }
    if (more) next = source.start_row();
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) {
        source.make(begin, end);
        if (begin == 0) sums.start(n, next);
        sums.template add<Rows::kFrom>(begin, end);
      }
      if (!begun) return;
      const T* const from = x;
      const typename Norm::Row factors = row;
      const auto chunk = writer.chunk(begin);
      each_vector_of_chunk<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        auto value = factors.xhat(vector.load(from)) * vector.load(weight);
        if constexpr (kBias) value = value + vector.load(bias);
        chunk.store(vector, value);
      });
    });
    if (begun) writer.end_row();
  }
  source.finish();
  writer.finish();
}

// The means of g and of g * xhat over a row, which its dx needs.
template <typename Norm, bool kWeight, typename T>
class RowGradientMeans {
 public:
  typename Norm::Row row;
  T mean_g, mean_g_xhat;

  // Starts a row. Nothing is added yet.
  PYREG_INLINE void start(int64_t n, const T* dy, const T* x, const typename Norm::Row& of, const T* weight) {
    n_ = n, dy_ = dy, x_ = x, weight_ = weight, row = of;
    sum_g_.start();
    sum_g_xhat_.start();
  }

  template <From kFrom>
  PYREG_INLINE_WIDE void add(int64_t begin, int64_t end) {
    Accumulators<T> sum_g = sum_g_.accumulators(), sum_g_xhat = sum_g_xhat_.accumulators();
    const T *const dy = dy_, *const x = x_, *const weight = weight_;
    const typename Norm::Row factors = row;
    each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
      auto g = vector.load(dy);
      if constexpr (kWeight) g = g * vector.load(weight);
      if constexpr (Norm::kCentred) sum_g.v[vector.k] += g;
      sum_g_xhat.v[vector.k] += vector.only_row(g * factors.xhat(vector.load(x)));
      fetch_row<kFrom>(vector, dy);
      fetch_row<kFrom>(vector, x);
    });
    if constexpr (Norm::kCentred) sum_g_.put(sum_g, end, n_);
    sum_g_xhat_.put(sum_g_xhat, end, n_);
  }

  // Called when the whole row is added.
  PYREG_INLINE void finish() {
    mean_g = static_cast<T>(sum_g_.total() / static_cast<double>(n_));
    mean_g_xhat = static_cast<T>(sum_g_xhat_.total() / static_cast<double>(n_));
  }

 private:
  int64_t n_;
  const T *dy_, *x_, *weight_;
  RowSum<T> sum_g_, sum_g_xhat_;
};

// dy, x (rows, n); mean (rows) if Norm has one, rstd (rows); weight (n), or null if !kWeight. dweight, dbias: sums
// over these rows; there is no dbias if Norm has no mean. The gradient may write over dy or x.
template <typename Norm, bool kWeight, bool kNontemporal, typename T, typename Gradient>
void norm_backward_rows(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                        const T* weight, Gradient& gradient, const ColumnSum<T>& dweight_sum,
                        const ColumnSum<T>& dbias_sum) {
  RowAdder<T> dweights(rows, n, dweight_sum), dbiases(rows, n, dbias_sum);
  RowGradientMeans<Norm, kWeight, T> means;
  for (int64_t r = -1; r < rows; ++r) {
    typename Norm::Row row{};
    T mean_g = 0, mean_g_xhat = 0;
    int64_t lead = 0;
    T *const dweight = dweights.target(), *const dbias = dbiases.target();
    const bool begun = r >= 0, more = r + 1 < rows;
    if (begun) {
      means.finish();
      row = means.row, mean_g = means.mean_g, mean_g_xhat = means.mean_g_xhat;
      lead = to_next_line(kWeight && !kNontemporal ? dweight : gradient.row());
    }
    const T *const dy_r = begun ? dy + r * n : dy, *const x_r = begun ? x + r * n : x;
    if (more) means.start(n, dy + (r + 1) * n, x + (r + 1) * n, Norm::row(mean, rstd, r + 1), weight);
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) means.template add<kFromInput<kNontemporal>>(begin, end);
      if (!begun) return;
      const auto chunk = gradient.chunk(begin);
      const typename Norm::Row factors = row;
      each_vector_of_chunk<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        const auto dy_i = vector.load(dy_r), xhat = factors.xhat(vector.load(x_r));
        auto g = dy_i;
        if constexpr (kWeight) {
          g = g * vector.load(weight);
          vector.store(dweight, vector.load(dweight) + dy_i * xhat);
          if constexpr (Norm::kCentred) vector.store(dbias, vector.load(dbias) + dy_i);
        }
        if constexpr (Norm::kCentred) g = g - mean_g;
        chunk.store(vector, (g - xhat * mean_g_xhat) * factors.rstd);
      });
    });
    if (!begun) continue;
    gradient.end_row();
    dweights.end_row();
    dbiases.end_row();
  }
  gradient.finish();
}

// dx (rows, n). weight may be null; there are no dweight and dbias then.
template <typename Norm, typename T>
void norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                   const T* weight, T* dx, const ColumnSum<T>& dweight, const ColumnSum<T>& dbias, bool nontemporal) {
  const auto run = [&](auto weighs, auto is_nontemporal) PYREG_LAMBDA {
    RowWriter<T, is_nontemporal.value> gradient(n, dx);
    norm_backward_rows<Norm, weighs.value, is_nontemporal.value>(rows, n, dy, x, mean, rstd, weight, gradient,
                                                                 dweight, dbias);
  };
  choose_stores<T>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    weight ? run(Flag<true>{}, is_nontemporal) : run(Flag<false>{}, is_nontemporal);
  });
}

}  // namespace
}  // namespace pyreg
