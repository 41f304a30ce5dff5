// Softmax over rows of scores, followed by dropout (attention: Vaswani et al., 2017, arXiv:1706.03762).
//
//   forward    s = x * scale + mask,  prob = exp(s - max(s)) / sum(exp(s - max(s))),  y = dropout(prob)
//   backward   dprob = dropout(dy),  dx = prob * (dprob - sum(dprob * prob)) * scale
//   from y     if nothing was dropped: the same, with prob = y and dprob = dy
//
// The current rows are held in the scratch. A key that `keep` or causal leaves out has a score of -inf, whose weight
// is 0. So has the padding of a row up to a whole vector.
#pragma once

#include "kernels/elementary.h"
#include "kernels/row_masks.h"
#include "kernels/row_writer.h"
#include "kernels/score_rows.h"
#include "kernels/softmax_from_weights.h"

namespace pyreg {
namespace {

// Writes the exponentials over the scores. Returns their sum.
template <typename Order, typename T>
PYREG_NOINLINE double exponentials(int64_t n, T* scores, T maximum) {
  return sum_of_vectors<Order, true>(n, [&](auto vector) PYREG_LAMBDA {
    const auto e = exp<T>(vector.load(scores) - maximum);
    vector.store(scores, e);
    return e;
  });
}

// Writes the weights over the scores. Returns the sum of their products with dprob. kSelect: sets the weights to 0
// that `kept` leaves out, or, if it is null, those after the row's end. Without it they are 0 * rsum: NaN if rsum is
// infinite, as no forward pass returns it.
template <bool kSelect, typename Order, typename T>
PYREG_NOINLINE double probabilities(int64_t n, T* scores, T maximum, T rsum, const uint8_t* kept, const T* dprob) {
  return sum_of_vectors<Order, true>(n, [&](auto vector) PYREG_LAMBDA {
    auto prob = exp<T>(vector.load(scores) - maximum) * rsum;
    if constexpr (kSelect) {
      prob = kept ? where_kept<T>(prob, kept_lanes<T>(vector, kept)) : vector.before(n) ? prob : decltype(prob){};
    }
    vector.store(scores, prob);
    return prob * vector.load(dprob);
  });
}

template <typename T>
void fill_zeros(T* row, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; ++i) row[i] = 0;
}

// The same for elements from, ..., n - 1 of a row in the order of S's vectors.
template <typename S, typename T>
void fill_end(T* row, int64_t from, int64_t n) {
  if constexpr (kPaired<S>) {
    const int64_t last = from / kStep<S> * kStep<S>;
    for (int k = 0; last < from && k < 2; ++k) {
      const WholeVector<S> vector(last + k * Group<S>::kWidth, k, true);
      vector.store(row, vector.before(from) ? vector.load(row) : typename Native<S>::vec{});
    }
    from = whole_steps<S>(from);
  }
  fill_zeros(row, from, row_elements<S>(n));
}

template <typename S, bool kNontemporal>
void softmax_dropout_forward_rows(const SoftmaxDropoutForward<S>& a) {
  using T = Compute<S>;
  const int64_t n = a.scores.n;
  ScoreRows<S> rows(a.scores);
  RowMasks masks(a.scores.rows, n, a.threshold, a.key, a.offset);
  const T keep_scale = masks.scale<T>();
  RowWriter<S, kNontemporal> results(n, a.y, a.nontemporal);
  T* const e = a.scratch;
  auto* const kept = reinterpret_cast<uint8_t*>(e + whole_groups<T>(n));
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next()) {
    const int64_t count = rows.count();
    if (a.scores.keep) rows.write_kept(kept);
    const T maximum = a.scores.keep ? rows.template make<true>(kept, e) : rows.template make<false>(kept, e);
    const double sum = exponentials<typename OrderOf<S>::type>(count, e, maximum);
    const T rsum = sum == 0 ? T{0} : static_cast<T>(1 / sum);
    a.maximum[r] = maximum;
    a.rsum[r] = rsum;
    fill_zeros(e, whole_steps<S>(count), row_elements<S>(n));
    write_masked_row<S>(results, masks,
                        [&](auto vector) PYREG_LAMBDA { return from_scratch(vector, e) * rsum * keep_scale; });
  }
  results.finish();
}

// y may be x.
template <typename S>
void softmax_dropout_forward(const SoftmaxDropoutForward<S>& a) {
  choose_stores<S>(a.nontemporal, a.scores.rows, a.scores.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    softmax_dropout_forward_rows<S, is_nontemporal.value>(a);
  });
}

// Writes dprob of the row dy in whole vectors. Only the first `count` elements may have a weight, and with kKeep
// those whose byte of `kept` is set; the others are 0.
template <bool kKeep, typename S, typename T>
PYREG_NOINLINE void drop_row(int64_t n, int64_t count, const S* dy, RowMasks& masks, T keep_scale,
                             const uint8_t* kept, T* dprob) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
    const uint8_t* const keep = masks.chunk(begin);
    each_vector<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      auto v = masked<T>(vector.load(dy), keep_scale, kept_lanes<T>(vector, keep, begin));
      if constexpr (kKeep) v = where_kept<T>(v, kept_lanes<T>(vector, kept));
      std::memcpy(dprob + vector.at, &v, sizeof v);
      fetch_row<From::cache>(vector, dy);
    });
  });
  fill_end<S>(dprob, count, n);
}

template <typename S, bool kNontemporal>
void softmax_dropout_backward_rows(const SoftmaxDropoutBackward<S>& a) {
  using T = Compute<S>;
  using Order = typename OrderOf<S>::type;
  const int64_t n = a.scores.n;
  ScoreRows<S> rows(a.scores);
  RowMasks masks(a.scores.rows, n, a.threshold, a.key, a.offset);
  const T keep_scale = masks.scale<T>(), score_scale = a.scores.scale;
  RowWriter<S, kNontemporal> results(n, a.dx, a.nontemporal);
  T *const prob = a.scratch, *const dprob = a.scratch + whole_groups<T>(n);
  auto* const kept = reinterpret_cast<uint8_t*>(dprob + whole_groups<T>(n));
  const S* dy = a.dy;
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next(), dy += n) {
    const int64_t count = rows.count();
    const T maximum = plain_if<kHalf<S>>(a.maximum[r]), rsum = plain_if<kHalf<S>>(a.rsum[r]);
    T mean;
    if (a.scores.keep) {
      rows.write_kept(kept);
      rows.template make<true>(kept, prob);
      drop_row<true>(n, count, dy, masks, keep_scale, kept, dprob);
      mean = static_cast<T>(probabilities<true, Order>(count, prob, maximum, rsum, kept, dprob));
    } else {
      rows.template make<false>(nullptr, prob);
      drop_row<false>(n, count, dy, masks, keep_scale, nullptr, dprob);
      const auto sum = rsum - rsum == 0 ? probabilities<false, Order, T> : probabilities<true, Order, T>;
      mean = static_cast<T>(sum(count, prob, maximum, rsum, nullptr, dprob));
    }
    fill_end<S>(prob, count, n);
    results.write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
                      [&](const auto& target, auto vector) PYREG_LAMBDA {
                        const auto dscore = from_scratch(vector, prob) * (from_scratch(vector, dprob) - mean);
                        target.store(vector, dscore * score_scale);
                      });
  }
  results.finish();
}

// dx may be dy or x.
template <typename S>
void softmax_dropout_backward(const SoftmaxDropoutBackward<S>& a) {
  const bool some = a.scores.keep || a.scores.queries > 0;
  choose_stores<S>(a.nontemporal, a.scores.rows, a.scores.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    if (!a.from_weights)
      softmax_dropout_backward_rows<S, is_nontemporal.value>(a);
    else if constexpr (is_nontemporal.value)
      some ? softmax_backward_from_weights_in_memory<S, true>(a)
           : softmax_backward_from_weights_in_memory<S, false>(a);
    else
      some ? softmax_backward_from_weights_in_cache<S, true>(a) : softmax_backward_from_weights_in_cache<S, false>(a);
  });
}

}  // namespace
}  // namespace pyreg
