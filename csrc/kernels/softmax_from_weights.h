// The backward pass of softmax from its weights y, if nothing was dropped: dx = y * (dy - sum(dy * y)) * scale.
#pragma once

#include "kernels/row_writer.h"
#include "kernels/score_rows.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

// A row of weights y and its dy, for the backward pass from the weights. kSome: causal or `keep` leaves out some.
template <typename S, bool kSome>
struct WeightsRow {
  using T = Compute<S>;
  const S *y, *dy;
  const uint8_t* kept;  // only with kSome

  template <typename Vector>
  PYREG_INLINE typename Native<T>::vec product(Vector vector) const {
    return left(vector, vector.load(dy)) * left(vector, vector.load(y));
  }
  template <typename Vector>
  PYREG_INLINE typename Native<T>::vec dx(Vector vector, T mean, T score_scale) const {
    return (left(vector, vector.load(y)) * (left(vector, vector.load(dy)) - mean)) * score_scale;
  }
  template <From kFrom, typename Vector>
  PYREG_INLINE void fetch(Vector vector) const {
    fetch_row<kFrom>(vector, y);
    fetch_row<kFrom>(vector, dy);
  }

 private:
  template <typename Vector>
  PYREG_INLINE typename Native<T>::vec left(Vector vector, typename Native<T>::vec v) const {
    if constexpr (kSome) return where_kept<T>(v, kept_lanes<T>(vector, kept));
    return v;
  }
};

// The rows of weights, one after the other.
template <typename S, bool kSome>
class WeightsRows {
 public:
  explicit WeightsRows(const SoftmaxDropoutBackward<S>& a) : a_(a), rows_(a.scores) {}

  PYREG_INLINE WeightsRow<S, kSome> next() {
    const int64_t n = a_.scores.n, r = row_++;
    // Two rows of bytes, each in the place of a row of scores: one is written while the other is read.
    auto* const kept = reinterpret_cast<uint8_t*>(row_in_turn(a_.scratch, r, n));
    if constexpr (kSome) rows_.write_kept(kept);
    const S* const y = rows_.x();
    rows_.next();
    return {y, a_.dy + r * n, kept};
  }

 private:
  const SoftmaxDropoutBackward<S>& a_;
  ScoreRows<S> rows_;
  int64_t row_ = 0;
};

template <typename S, bool kSome>
void softmax_backward_from_weights_in_cache(const SoftmaxDropoutBackward<S>& a) {
  const int64_t n = a.scores.n;
  WeightsRows<S, kSome> rows(a);
  RowWriter<S, false> results(n, a.dx, a.nontemporal);
  using T = Compute<S>;
  const T score_scale = a.scores.scale;
  for (int64_t r = 0; r < a.scores.rows; ++r) {
    const WeightsRow<S, kSome> row = rows.next();
    const T mean = static_cast<T>(sum_of_vectors<S, false>(n, [&](auto vector) PYREG_LAMBDA {
      row.template fetch<From::cache>(vector);
      return row.product(vector);
    }));
    results.write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
                      [&](const auto& target, auto vector)
                          PYREG_LAMBDA { target.store(vector, row.dx(vector, mean, score_scale)); });
  }
  results.finish();
}

// As in norm_rows.h, row r + 1 is read from memory while the gradient of row r is written.
template <typename S, bool kSome>
void softmax_backward_from_weights_in_memory(const SoftmaxDropoutBackward<S>& a) {
  const int64_t n = a.scores.n;
  WeightsRows<S, kSome> rows(a);
  RowWriter<S, true> results(n, a.dx);
  using T = Compute<S>;
  const T score_scale = a.scores.scale;
  RowSum<S> sum;
  WeightsRow<S, kSome> next{};
  for (int64_t r = -1; r < a.scores.rows; ++r) {
    const WeightsRow<S, kSome> row = next;
    const T mean = static_cast<T>(sum.total());
    const int64_t lead = results.lead();
    const bool begun = r >= 0, more = r + 1 < a.scores.rows;
    if (more) next = rows.next();
    sum.start();
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) {
        Accumulators<S> products = sum.accumulators();
        const WeightsRow<S, kSome> from = next;
        each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
          products.v[vector.k] += from.product(vector);
          from.template fetch<kFromInput<true>>(vector);
        });
        sum.put(products, end, n);
      }
      if (!begun) return;
      const auto chunk = results.chunk(begin);
      each_vector_of_chunk<S>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        chunk.store(vector, row.dx(vector, mean, score_scale));
      });
    });
    if (begun) results.end_row();
  }
  results.finish();
}

}  // namespace
}  // namespace pyreg
