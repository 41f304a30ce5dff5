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
#include "kernels/table.h"

namespace pyreg {
namespace {

// n rounded up to whole vectors.
template <typename T>
constexpr int64_t whole_vectors(int64_t n) {
  return (n + Group<T>::kWidth - 1) / Group<T>::kWidth * Group<T>::kWidth;
}

// A whole vector of a row in the scratch, of which the elements after the row's end are not used.
template <typename T, typename Vector>
PYREG_INLINE typename Native<T>::vec from_scratch(Vector vector, const T* row) {
  typename Native<T>::vec v;
  std::memcpy(&v, row + vector.at, sizeof v);
  return v;
}

// The larger of two scores, or vectors of scores; `other` if `score` is NaN.
template <typename Score>
PYREG_INLINE Score larger(Score score, Score other) {
  return score > other ? score : other;
}

// v where a row's bytes are 0xff, and +0 where they are 0.
template <typename T>
PYREG_INLINE typename Native<T>::vec where_kept(typename Native<T>::vec v, const uint8_t* kept) {
  return (typename Native<T>::vec)((typename Native<T>::mask)v & widen_mask<T>(kept));
}

// The rows of scores, one after the other.
template <typename T>
class ScoreRows {
 public:
  explicit ScoreRows(const SoftmaxScores<T>& s) : s_(s), x_(s.x), mask_(s.mask), keep_(s.keep), query_(s.query) {
    int64_t row = s.row;
    for (int axis = s.axes - 1; axis >= 0; row /= s.lengths[axis], --axis) {
      place_[axis] = row % s.lengths[axis];
      mask_ += place_[axis] * s.mask_strides[axis];
      keep_ += place_[axis] * s.keep_strides[axis];
    }
  }

  PYREG_INLINE const T* x() const { return x_; }

  // How many of the row's first scores causal leaves.
  PYREG_INLINE int64_t count() const {
    if (s_.queries == 0) return s_.n;
    const int64_t seen = query_ + s_.first_sees;
    return seen < 0 ? 0 : seen < s_.n ? seen : s_.n;
  }

  // Writes which scores are left to `kept`, in whole groups: 0xff or 0.
  PYREG_NOINLINE void write_kept(uint8_t* kept) const {
    typedef uint8_t bytes __attribute__((vector_size(16)));
    constexpr int kBytes = sizeof(bytes);
    const int64_t some = count(), end = whole_groups<T>(s_.n);
    std::memset(kept + some, 0, end - some);
    if (!s_.keep) {
      std::memset(kept, 0xff, some);
      return;
    }
    const auto take = [&](int64_t at) PYREG_LAMBDA {
      bytes v;
      std::memcpy(&v, keep_ + at, kBytes);
      v = (bytes)(v != 0);
      std::memcpy(kept + at, &v, kBytes);
    };
    int64_t at = 0;
    for (; at + kBytes <= some; at += kBytes) take(at);
    if (at < some && some >= kBytes) return take(some - kBytes);
    for (; at < some; ++at) kept[at] = keep_[at] != 0 ? 0xff : 0;
  }

  // Writes the scores of a row in whole vectors. Returns the largest, ignoring NaNs; 0 if it is -inf. kKeep: only
  // scores whose byte of `kept` is set are left; else `kept` is not read.
  template <bool kKeep>
  PYREG_NOINLINE T make(const uint8_t* kept, T* scores) const {
    const int64_t n = s_.n, some = count(), whole = some / Group<T>::kCount * Group<T>::kCount;
    const T *const x = x_, *const mask = mask_;
    const T score_scale = s_.scale;
    const auto none = typename Native<T>::vec{} + kNone;
    Accumulators<T> largest;
    PYREG_UNROLL
    for (auto& v : largest.v) v = none;
    for (int64_t at = 0; at < whole; at += Group<T>::kCount) {
      PYREG_UNROLL
      for (int k = 0; k < Group<T>::kVecs; ++k) {
        const WholeVector<T> vector{at + k * Group<T>::kWidth, k, true};
        auto s = vector.load(x) * score_scale + vector.load(mask);
        if constexpr (kKeep) s = widen_mask<T>(kept + vector.at) ? s : none;
        largest.v[k] = larger(s, largest.v[k]);
        vector.store(scores, s);
        fetch_row<From::cache>(vector, x);
      }
    }
    // Less than a group is left. Its last part may be beyond the row's end, or beyond the query.
    for (int64_t at = whole; at < some; at += Group<T>::kWidth) {
      auto s = at + Group<T>::kWidth <= n ? scaled_and_masked(WholeVector<T>{at, 0, true})
                                          : scaled_and_masked(PartVector<T>{at, 0, static_cast<int>(n - at)});
      if constexpr (kKeep)
        s = widen_mask<T>(kept + at) ? s : none;
      else
        s = first_lanes<T>(static_cast<int>(some - at)) ? s : none;
      largest.v[0] = larger(s, largest.v[0]);
      std::memcpy(scores + at, &s, sizeof s);
    }
    const T maximum = largest.halved([](auto a, auto b) PYREG_LAMBDA { return larger(a, b); });
    // Adding 0 turns -0 into +0.
    return maximum == kNone ? T{0} : maximum + T{0};
  }

  void next() {
    x_ += s_.n;
    if (s_.queries > 0 && ++query_ == s_.queries) query_ = 0;
    for (int axis = s_.axes - 1; axis >= 0; --axis) {
      mask_ += s_.mask_strides[axis];
      keep_ += s_.keep_strides[axis];
      if (++place_[axis] < s_.lengths[axis]) return;
      mask_ -= s_.mask_strides[axis] * s_.lengths[axis];
      keep_ -= s_.keep_strides[axis] * s_.lengths[axis];
      place_[axis] = 0;
    }
  }

 private:
  static constexpr T kNone = -static_cast<T>(__builtin_inf());

  template <typename Vector>
  PYREG_INLINE typename Native<T>::vec scaled_and_masked(Vector vector) const {
    return vector.load(x_) * s_.scale + vector.load(mask_);
  }

  const SoftmaxScores<T>& s_;
  const T *x_, *mask_;
  const uint8_t* keep_;
  int64_t query_;
  int64_t place_[kMaxAxes];
};

// The sum of take(vector) over the vectors of a row of n. kPadded: the row may be taken in whole vectors.
template <typename T, bool kPadded, typename Take>
PYREG_INLINE double sum_of_vectors(int64_t n, Take take) {
  constexpr int kWidth = Group<T>::kWidth, kCount = Group<T>::kCount;
  RowSum<T> sum;
  const int64_t groups_end = n / kCount * kCount;
  for (int64_t begin = 0; begin < groups_end; begin += kSumBlock) {
    const int64_t end = groups_end - begin < kSumBlock ? groups_end : begin + kSumBlock;
    Accumulators<T> accumulators = sum.accumulators();
    for (int64_t at = begin; at < end; at += kCount) {
      PYREG_UNROLL
      for (int k = 0; k < Group<T>::kVecs; ++k) accumulators.v[k] += take(WholeVector<T>{at + k * kWidth, k, true});
    }
    sum.put(accumulators, end, n);
  }
  if (groups_end == n) return sum.total();
  // The lanes of vectors that hold no element of the row keep their sums.
  Accumulators<T> rest = sum.accumulators();
  PYREG_UNROLL
  for (int k = 0; k < Group<T>::kVecs; ++k) {
    const int64_t at = groups_end + k * kWidth;
    if (at + kWidth <= n || (kPadded && at < n))
      rest.v[k] += take(WholeVector<T>{at, k, true});
    else if (at < n)
      rest.v[k] += take(PartVector<T>{at, k, static_cast<int>(n - at)});
  }
  sum.put(rest, n, n);
  return sum.total();
}

// Writes the exponentials over the scores. Returns their sum.
template <typename T>
PYREG_NOINLINE double exponentials(int64_t n, T* scores, T maximum) {
  return sum_of_vectors<T, true>(n, [&](auto vector) PYREG_LAMBDA {
    const auto e = exp<T>(vector.load(scores) - maximum);
    vector.store(scores, e);
    return e;
  });
}

// Writes the weights over the scores. Returns the sum of their products with dprob. kSelect: sets the weights to 0
// that `kept` leaves out, or, if it is null, those after the row's end. Without it they are 0 * rsum: NaN if rsum is
// infinite, as no forward pass returns it.
template <bool kSelect, typename T>
PYREG_NOINLINE double probabilities(int64_t n, T* scores, T maximum, T rsum, const uint8_t* kept, const T* dprob) {
  return sum_of_vectors<T, true>(n, [&](auto vector) PYREG_LAMBDA {
    auto prob = exp<T>(vector.load(scores) - maximum) * rsum;
    if constexpr (kSelect) {
      const int64_t left = n - vector.at < Group<T>::kWidth ? n - vector.at : Group<T>::kWidth;
      prob = kept                                     ? where_kept<T>(prob, kept + vector.at)
             : first_lanes<T>(static_cast<int>(left)) ? prob
                                                      : decltype(prob){};
    }
    vector.store(scores, prob);
    return prob * vector.load(dprob);
  });
}

template <typename T>
void fill_zeros(T* row, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; ++i) row[i] = 0;
}

template <typename T, bool kNontemporal>
void softmax_dropout_forward_rows(const SoftmaxDropoutForward<T>& a) {
  const int64_t n = a.scores.n;
  ScoreRows<T> rows(a.scores);
  RowMasks masks(a.scores.rows, n, a.threshold, a.key, a.offset);
  const T keep_scale = masks.scale<T>();
  RowWriter<T, kNontemporal> results(n, a.y);
  T* const e = a.scratch;
  auto* const kept = reinterpret_cast<uint8_t*>(e + whole_groups<T>(n));
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next()) {
    const int64_t count = rows.count();
    if (a.scores.keep) rows.write_kept(kept);
    const T maximum = a.scores.keep ? rows.template make<true>(kept, e) : rows.template make<false>(kept, e);
    const double sum = exponentials(count, e, maximum);
    const T rsum = sum == 0 ? T{0} : static_cast<T>(1 / sum);
    a.maximum[r] = maximum;
    a.rsum[r] = rsum;
    fill_zeros(e, whole_vectors<T>(count), n);
    const uint8_t* keep = nullptr;
    int64_t chunk_begin = 0;
    results.write_row(
        [&](int64_t begin, const MovedChunk&) PYREG_LAMBDA {
          keep = masks.chunk(begin);
          chunk_begin = begin;
        },
        [&](auto vector) PYREG_LAMBDA {
          return masked<T>(from_scratch(vector, e) * rsum, keep_scale, keep + (vector.at - chunk_begin));
        });
  }
  results.finish();
}

// y may be x.
template <typename T>
void softmax_dropout_forward(const SoftmaxDropoutForward<T>& a) {
  choose_stores<T>(a.nontemporal, a.scores.rows, a.scores.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    softmax_dropout_forward_rows<T, is_nontemporal.value>(a);
  });
}

// Writes dprob of the row dy in whole vectors. Only the first `count` elements may have a weight, and with kKeep
// those whose byte of `kept` is set; the others are 0.
template <bool kKeep, typename T>
PYREG_NOINLINE void drop_row(int64_t n, int64_t count, const T* dy, RowMasks& masks, T keep_scale,
                             const uint8_t* kept, T* dprob) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
    const uint8_t* const keep = masks.chunk(begin);
    each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
      auto v = masked<T>(vector.load(dy), keep_scale, keep + (vector.at - begin));
      if constexpr (kKeep) v = where_kept<T>(v, kept + vector.at);
      std::memcpy(dprob + vector.at, &v, sizeof v);
      fetch_row<From::cache>(vector, dy);
    });
  });
  fill_zeros(dprob, count, n);
}

template <typename T, bool kNontemporal>
void softmax_dropout_backward_rows(const SoftmaxDropoutBackward<T>& a) {
  const int64_t n = a.scores.n;
  ScoreRows<T> rows(a.scores);
  RowMasks masks(a.scores.rows, n, a.threshold, a.key, a.offset);
  const T keep_scale = masks.scale<T>(), score_scale = a.scores.scale;
  RowWriter<T, kNontemporal> results(n, a.dx);
  T *const prob = a.scratch, *const dprob = a.scratch + whole_groups<T>(n);
  auto* const kept = reinterpret_cast<uint8_t*>(dprob + whole_groups<T>(n));
  const T* dy = a.dy;
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next(), dy += n) {
    const int64_t count = rows.count();
    const T maximum = a.maximum[r], rsum = a.rsum[r];
    T mean;
    if (a.scores.keep) {
      rows.write_kept(kept);
      rows.template make<true>(kept, prob);
      drop_row<true>(n, count, dy, masks, keep_scale, kept, dprob);
      mean = static_cast<T>(probabilities<true>(count, prob, maximum, rsum, kept, dprob));
    } else {
      rows.template make<false>(nullptr, prob);
      drop_row<false>(n, count, dy, masks, keep_scale, nullptr, dprob);
      const auto sum = rsum - rsum == 0 ? probabilities<false, T> : probabilities<true, T>;
      mean = static_cast<T>(sum(count, prob, maximum, rsum, nullptr, dprob));
    }
    fill_zeros(prob, count, n);
    results.write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
                      [&](auto vector) PYREG_LAMBDA {
                        return (from_scratch(vector, prob) * (from_scratch(vector, dprob) - mean)) * score_scale;
                      });
  }
  results.finish();
}

// A row of weights y and its dy, for the backward pass from the weights. kSome: causal or `keep` leaves out some.
template <typename T, bool kSome>
struct WeightsRow {
  const T *y, *dy;
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
    if constexpr (kSome) return where_kept<T>(v, kept + vector.at);
    return v;
  }
};

// The rows of weights, one after the other.
template <typename T, bool kSome>
class WeightsRows {
 public:
  explicit WeightsRows(const SoftmaxDropoutBackward<T>& a) : a_(a), rows_(a.scores) {}

  PYREG_INLINE WeightsRow<T, kSome> next() {
    const int64_t n = a_.scores.n, r = row_++;
    auto* const kept = reinterpret_cast<uint8_t*>(a_.scratch + r % 2 * whole_groups<T>(n));
    if constexpr (kSome) rows_.write_kept(kept);
    const T* const y = rows_.x();
    rows_.next();
    return {y, a_.dy + r * n, kept};
  }

 private:
  const SoftmaxDropoutBackward<T>& a_;
  ScoreRows<T> rows_;
  int64_t row_ = 0;
};

template <typename T, bool kSome>
void softmax_backward_from_weights_in_cache(const SoftmaxDropoutBackward<T>& a) {
  const int64_t n = a.scores.n;
  WeightsRows<T, kSome> rows(a);
  RowWriter<T, false> results(n, a.dx);
  const T score_scale = a.scores.scale;
  for (int64_t r = 0; r < a.scores.rows; ++r) {
    const WeightsRow<T, kSome> row = rows.next();
    const T mean = static_cast<T>(sum_of_vectors<T, false>(n, [&](auto vector) PYREG_LAMBDA {
      row.template fetch<From::cache>(vector);
      return row.product(vector);
    }));
    results.write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
                      [&](auto vector) PYREG_LAMBDA { return row.dx(vector, mean, score_scale); });
  }
}

// As in norm_rows.h, row r + 1 is read from memory while the gradient of row r is written.
template <typename T, bool kSome>
void softmax_backward_from_weights_in_memory(const SoftmaxDropoutBackward<T>& a) {
  const int64_t n = a.scores.n;
  WeightsRows<T, kSome> rows(a);
  RowWriter<T, true> results(n, a.dx);
  const T score_scale = a.scores.scale;
  RowSum<T> sum;
  WeightsRow<T, kSome> next{};
  for (int64_t r = -1; r < a.scores.rows; ++r) {
    const WeightsRow<T, kSome> row = next;
    const T mean = static_cast<T>(sum.total());
    const int64_t lead = results.lead();
    const bool begun = r >= 0, more = r + 1 < a.scores.rows;
    if (more) next = rows.next();
    sum.start();
    each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      if (more) {
        Accumulators<T> products = sum.accumulators();
        const WeightsRow<T, kSome> from = next;
        each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
          products.v[vector.k] += from.product(vector);
          from.template fetch<kFromInput<true>>(vector);
        });
        sum.put(products, end, n);
      }
      if (!begun) return;
      const auto chunk = results.chunk(begin);
      each_vector_of_chunk<T>(begin, end, n, lead, [&](auto vector) PYREG_LAMBDA {
        chunk.store(vector, row.dx(vector, mean, score_scale));
      });
    });
    if (begun) results.end_row();
  }
  results.finish();
}

// dx may be dy or x.
template <typename T>
void softmax_dropout_backward(const SoftmaxDropoutBackward<T>& a) {
  const bool some = a.scores.keep || a.scores.queries > 0;
  choose_stores<T>(a.nontemporal, a.scores.rows, a.scores.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    if (!a.from_weights)
      softmax_dropout_backward_rows<T, is_nontemporal.value>(a);
    else if constexpr (is_nontemporal.value)
      some ? softmax_backward_from_weights_in_memory<T, true>(a)
           : softmax_backward_from_weights_in_memory<T, false>(a);
    else
      some ? softmax_backward_from_weights_in_cache<T, true>(a) : softmax_backward_from_weights_in_cache<T, false>(a);
  });
}

}  // namespace
}  // namespace pyreg
