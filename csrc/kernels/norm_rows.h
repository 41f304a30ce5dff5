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
//       in the second case y <- x * 2**k is summed, and replaces x (of 16 bits: in the scratch)
//     for each chunk of 256 elements:                        row_sums.h
//       of row r + 1:  [make it from x, mask and residual]   dropout_add_norm.h, row_masks.h
//                      add it to the sums, lane by lane      lanes.h
//                      prefetch some KB ahead
//       of row r:      y <- (x - mean) * rstd * weight + bias, for a chunk that starts on a cache line of y;
//                      with ordinary stores or past the caches: row_writer.h
//
// x in pairs (half.h) is widened once, but for the forward pass of RMSNorm, which does little else with it: x -
// shift, or xhat in the backward pass, waits in the scratch.
//
// The backward pass is the same, with the sums of g and g * xhat, and with dx, dweight and dbias (row_adder.h)
// instead of y.
#pragma once

#include "kernels/row_adder.h"
#include "kernels/row_moments.h"
#include "kernels/row_writer.h"

namespace pyreg {
namespace {

template <typename S>
struct LayerNorm {
  using T = Compute<S>;
  template <typename E>
  using Sums = RowMoments<S, E>;
  using Row = CentredRow<T>;
  static constexpr bool kCentred = true;

  static PYREG_INLINE Row row(const double* means, const T* rstd, int64_t i) {
    const double mean = plain_if<kHalf<S>>(means[i]);
    const T shift = static_cast<T>(mean);
    return {shift, static_cast<T>(mean - static_cast<double>(shift)), plain_if<kHalf<S>>(rstd[i])};
  }
};

template <typename S>
struct RmsNorm {
  using T = Compute<S>;
  template <typename E>
  using Sums = RowMeanSquare<S, E>;
  using Row = UncentredRow<T>;
  static constexpr bool kCentred = false;

  static PYREG_INLINE Row row(const double*, const T* rstd, int64_t i) { return {plain_if<kHalf<S>>(rstd[i])}; }
};

// The source of rows that are stored in memory.
template <typename S, bool kNontemporal>
class StoredRows {
 public:
  using Element = S;
  static constexpr From kFrom = kFromInput<kNontemporal>;

  StoredRows(int64_t n, const S* x) : n_(n), next_(x) {}

  // The next row. Its chunks can be read once they are made, in order.
  PYREG_INLINE const S* start_row() {
    const S* const row = next_;
    next_ += n_;
    return row;
  }
  PYREG_INLINE void make(int64_t, int64_t) {}
  PYREG_INLINE void finish() {}

 private:
  int64_t n_;
  const S* next_;
};

// A vector of y from one of xhat.
template <bool kBias, typename Vector, typename Value, typename T>
PYREG_INLINE Value weighed(Vector vector, Value xhat, const T* weight, const T* bias) {
  Value value = xhat * vector.load(weight);
  if constexpr (kBias) value = value + vector.load(bias);
  return value;
}

// Writes a row of y from x, which is in the order of S's vectors.
template <bool kBias, typename S, typename Row, typename T>
PYREG_NOINLINE void write_normalised(int64_t n, const Row& row, const T* x, const T* weight, const T* bias,
                                     RowWriter<S, false>& writer) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
    const auto chunk = writer.chunk(begin);
    each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      chunk.store(vector, weighed<kBias>(vector, row.xhat(vector.load(x)), weight, bias));
    });
  });
}

// y (rows, n), which may be the source's array; weight (n); bias (n) if kBias; mean, rstd (rows), or null. scratch:
// norm_scratch<S>(n). nontemporal: read only if kLessCode<S>; then kNontemporal is false.
template <typename Norm, bool kBias, bool kNontemporal, typename S, typename Rows>
void norm_forward_rows(int64_t rows, int64_t n, Rows& source, const Compute<S>* weight, const Compute<S>* bias,
                       double eps, S* y, double* mean, Compute<S>* rstd, Compute<S>* scratch, bool nontemporal) {
  using T = Compute<S>;
  using E = typename Rows::Element;
  constexpr bool kReadsHalf = kHalf<E>;
  RowWriter<S, kNontemporal> writer(n, y, nontemporal);
  using Sums = typename Norm::template Sums<E>;
  Sums sums;
  const E* next = nullptr;
  T* deviations_next = nullptr;
  // Row r + 1 is summed while row r is normalised. Starting at -1 keeps the code that sums a row in one place.
  for (int64_t r = -1; r < rows; ++r) {
    const E* x = next;
    T* const deviations = deviations_next;
    typename Norm::Row row{};
    const int64_t lead = writer.lead();
    const bool begun = r >= 0, more = r + 1 < rows;
    T* scaled_apart = nullptr;  // the scaled row, if x cannot hold it
    if (begun) {
      const auto take = [&](const auto& sums, double scale) PYREG_LAMBDA {
        const InverseDeviation<T> deviation = inverse_deviation<T>(sums, eps, scale);
        row = sums.row(deviation.factor());
        if constexpr (Norm::kCentred)
          if (mean) mean[r] = sums.mean() / scale;
        if (rstd) rstd[r] = deviation.rstd();
      };
      sums.finish();
      double scale = 1;
      const bool must_scale = needs_scale<T>(sums, eps);
      if constexpr (kReadsHalf) {
        if (must_scale) {
          scaled_apart = row_in_turn(scratch, r, n);
          to_vectors<S>(n, x, scaled_apart);
          scale = scale_row(row_elements<S>(n), scaled_apart, eps, scaled_apart);
          take(row_sums<typename Norm::template Sums<T>>(n, scaled_apart), scale);
        }
      } else if (must_scale) {
        T* scaled;
        if constexpr (kHalf<S>)
          scaled = scratch;
        else
          scaled = writer.row();
        scale = scale_row(row_elements<S>(n), x, eps, scaled);
        x = scaled;
        sums = row_sums<Sums>(n, x);
      }
      if (!scaled_apart) take(sums, scale);
    }
    if (more) {
      next = source.start_row();
      if constexpr (Sums::kStoresDeviations) deviations_next = row_in_turn(scratch, r + 1, n);
    }
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) {
        source.make(begin, end);
        if (begin == 0) sums.start(n, next, deviations_next);
        sums.template add<Rows::kFrom>(begin, end);
      }
      if (!begun || scaled_apart) return;
      const E* const from = x;
      const typename Norm::Row factors = row;
      const auto chunk = writer.chunk(begin);
      each_vector_of_chunk<S>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        typename Native<T>::vec xhat;
        if constexpr (Sums::kStoresDeviations)
          xhat = factors.xhat_of_deviation(vector.load(deviations));
        else
          xhat = factors.xhat(vector.load(from));
        chunk.store(vector, weighed<kBias>(vector, xhat, weight, bias));
      });
    });
    if constexpr (kReadsHalf)
      if (scaled_apart) write_normalised<kBias>(n, row, scaled_apart, weight, bias, writer);
    if (begun) writer.end_row();
  }
  source.finish();
  writer.finish();
}

// Whether xhat waits in the scratch until the means are known. Pairs would have to be widened again.
template <typename S>
constexpr bool kStoresXhat = kPaired<S>;

// The means of g and of g * xhat over a row, which its dx needs. E: the type of x's elements in memory.
template <typename Norm, bool kWeight, typename S, typename E>
class RowGradientMeans {
  using T = Compute<S>;

 public:
  typename Norm::Row row;
  T mean_g, mean_g_xhat;

  // Starts a row. Nothing is added yet. xhat: where xhat is to be stored if kStoresXhat<S>; may be x.
  PYREG_INLINE void start(int64_t n, const S* dy, const E* x, const typename Norm::Row& of, const T* weight,
                          T* xhat) {
    n_ = n, dy_ = dy, x_ = x, weight_ = weight, xhat_ = xhat, row = of;
    sum_g_.start();
    sum_g_xhat_.start();
  }

  template <From kDyFrom, From kFrom>
  PYREG_INLINE void add(int64_t begin, int64_t end) {
    if constexpr (Norm::kCentred)
      add_apart<kDyFrom, kFrom>(begin, end);
    else
      add_here<kDyFrom, kFrom>(begin, end);
  }

  // Called when the whole row is added.
  PYREG_INLINE void finish() {
    mean_g = static_cast<T>(sum_g_.total() / static_cast<double>(n_));
    mean_g_xhat = static_cast<T>(sum_g_xhat_.total() / static_cast<double>(n_));
  }

 private:
  // If it were inlined, both sums would take registers that the loop after it needs.
  template <From kDyFrom, From kFrom>
  PYREG_NOINLINE void add_apart(int64_t begin, int64_t end) {
    add_here<kDyFrom, kFrom>(begin, end);
  }

  template <From kDyFrom, From kFrom>
  PYREG_INLINE_WIDE void add_here(int64_t begin, int64_t end) {
    Accumulators<S> sum_g = sum_g_.accumulators(), sum_g_xhat = sum_g_xhat_.accumulators();
    const S* const dy = dy_;
    const E* const x = x_;
    const T* const weight = weight_;
    T* const xhat = xhat_;
    const typename Norm::Row factors = row;
    each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      auto g = vector.load(dy);
      if constexpr (kWeight) g = g * vector.load(weight);
      if constexpr (Norm::kCentred) sum_g.v[vector.k] += g;
      const auto xhat_i = factors.xhat(vector.load(x));
      if constexpr (kStoresXhat<S>) vector.store(xhat, xhat_i);
      sum_g_xhat.v[vector.k] += vector.only_row(g * xhat_i);
      fetch_row<kDyFrom>(vector, dy);
      fetch_row<kFrom>(vector, x);
    });
    if constexpr (Norm::kCentred) sum_g_.put(sum_g, end, n_);
    sum_g_xhat_.put(sum_g_xhat, end, n_);
  }

  int64_t n_;
  const S* dy_;
  const E* x_;
  const T* weight_;
  T* xhat_;
  RowSum<S> sum_g_, sum_g_xhat_;
};

// dy and the source's rows x (rows, n); mean (rows) if Norm has one, rstd (rows); weight (n), or null if !kWeight.
// dweight, dbias: sums over these rows; there is no dbias if Norm has no mean. The gradient may write over dy or x.
// scratch: norm_scratch<S>(n). The source may make row r in row_in_turn(scratch, r, n); xhat then replaces it.
template <typename Norm, bool kWeight, bool kNontemporal, typename S, typename Rows, typename Gradient,
          typename T = Compute<S>>
void norm_backward_rows(int64_t rows, int64_t n, const S* dy, Rows& source, const double* mean, const T* rstd,
                        const T* weight, Gradient& gradient, const ColumnSum<T>& dweight_sum,
                        const ColumnSum<T>& dbias_sum, T* scratch) {
  using E = typename Rows::Element;
  RowAdder<S> dweights(rows, n, dweight_sum), dbiases(rows, n, dbias_sum);
  RowGradientMeans<Norm, kWeight, S, E> means;
  const E* x_next = nullptr;
  T* xhat_next = nullptr;
  for (int64_t r = -1; r < rows; ++r) {
    typename Norm::Row row{};
    T mean_g = 0, mean_g_xhat = 0;
    int64_t lead = 0;
    T *const dweight = dweights.target(), *const dbias = dbiases.target();
    const bool begun = r >= 0, more = r + 1 < rows;
    if (begun) {
      means.finish();
      row = means.row, mean_g = means.mean_g, mean_g_xhat = means.mean_g_xhat;
      if constexpr (!kLessCode<S>) lead = to_next_line(kWeight && !kNontemporal ? dweight : gradient.row());
    }
    const S* const dy_r = begun ? dy + r * n : dy;
    const E* const x_r = x_next;
    const T* const xhat_r = xhat_next;
    if (more) {
      x_next = source.start_row();
      if constexpr (kStoresXhat<S>) xhat_next = row_in_turn(scratch, r + 1, n);
      means.start(n, dy + (r + 1) * n, x_next, Norm::row(mean, rstd, r + 1), weight, xhat_next);
    }
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) {
        source.make(begin, end);
        means.template add<kFromInput<kNontemporal>, Rows::kFrom>(begin, end);
      }
      if (!begun) return;
      const auto chunk = gradient.chunk(begin);
      const typename Norm::Row factors = row;
      each_vector_of_chunk<S>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        const auto dy_i = vector.load(dy_r);
        typename Native<T>::vec xhat;
        if constexpr (kStoresXhat<S>)
          xhat = vector.load(xhat_r);
        else
          xhat = factors.xhat(vector.load(x_r));
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
template <typename Norm, typename S, typename T = Compute<S>>
void norm_backward(int64_t rows, int64_t n, const S* dy, const S* x, const double* mean, const T* rstd,
                   const T* weight, S* dx, const ColumnSum<T>& dweight, const ColumnSum<T>& dbias, T* scratch,
                   bool nontemporal) {
  const auto run = [&](auto weighs, auto is_nontemporal) PYREG_LAMBDA {
    StoredRows<S, is_nontemporal.value> source(n, x);
    RowWriter<S, is_nontemporal.value> gradient(n, dx, nontemporal);
    norm_backward_rows<Norm, weighs.value, is_nontemporal.value>(rows, n, dy, source, mean, rstd, weight, gradient,
                                                                 dweight, dbias, scratch);
  };
  choose_stores<S>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    if constexpr (kLessCode<S>)  // without a weight, it is all ones
      run(Flag<true>{}, is_nontemporal);
    else
      weight ? run(Flag<true>{}, is_nontemporal) : run(Flag<false>{}, is_nontemporal);
  });
}

}  // namespace
}  // namespace pyreg
