// Softmax over rows of scores, followed by dropout (attention: Vaswani et al., 2017, arXiv:1706.03762).
//
//   forward    s = x * scale + mask,  prob = exp(s - max(s)) / sum(exp(s - max(s))),  y = dropout(prob)
//   backward   dprob = dropout(dy),  dx = prob * (dprob - sum(dprob * prob)) * scale
//
// The current rows are held in the scratch, padded to whole groups of lanes. The padding holds scores of -inf, whose
// weights are 0.
#pragma once

#include "kernels/elementary.h"
#include "kernels/row_masks.h"
#include "kernels/row_writer.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

// The larger of two scores, or vectors of scores; `other` if `score` is NaN.
template <typename Score>
PYREG_INLINE Score larger(Score score, Score other) {
  return score > other ? score : other;
}

// The rows of scores, one after the other.
template <typename T>
class ScoreRows {
 public:
  explicit ScoreRows(const SoftmaxScores<T>& s) : s_(s), x_(s.x), mask_(s.mask), query_(s.query) {
    int64_t row = s.row;
    for (int axis = s.axes - 1; axis >= 0; row /= s.lengths[axis], --axis) {
      place_[axis] = row % s.lengths[axis];
      mask_ += place_[axis] * s.mask_strides[axis];
    }
  }

  // How many scores of the row have a weight: all, or, if causal, those up to the query.
  PYREG_INLINE int64_t count() const { return s_.queries > 0 && query_ + 1 < s_.n ? query_ + 1 : s_.n; }

  // Writes the row to `scores`, in whole groups. Returns the largest, ignoring NaNs; 0 if it is -inf.
  PYREG_NOINLINE T make(T* scores) const {
    const int64_t n = s_.n, some = count(), whole = some / Group<T>::kCount * Group<T>::kCount;
    const T *const x = x_, *const mask = mask_;
    const T score_scale = s_.scale;
    Accumulators<T> largest;
    PYREG_UNROLL
    for (auto& v : largest.v) v = v + kNone;
    for (int64_t at = 0; at < whole; at += Group<T>::kCount) {
      PYREG_UNROLL
      for (int k = 0; k < Group<T>::kVecs; ++k) {
        const WholeVector<T> vector{at + k * Group<T>::kWidth, k, true};
        const auto s = vector.load(x) * score_scale + vector.load(mask);
        largest.v[k] = larger(s, largest.v[k]);
        vector.store(scores, s);
        fetch_row<From::cache>(vector, x);
      }
    }
    // Less than a group is left. Its last part may be beyond the row's end, or beyond the query.
    for (int64_t at = whole; at < whole_groups<T>(some); at += Group<T>::kWidth) {
      typename Native<T>::vec s{};
      if (at + Group<T>::kWidth <= n)
        s = scaled_and_masked(WholeVector<T>{at, 0, true});
      else if (at < n)
        s = scaled_and_masked(PartVector<T>{at, 0, static_cast<int>(n - at)});
      s = first_lanes<T>(static_cast<int>(some - at)) ? s : typename Native<T>::vec{} + kNone;
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
      if (++place_[axis] < s_.lengths[axis]) return;
      mask_ -= s_.mask_strides[axis] * s_.lengths[axis];
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
  int64_t query_;
  int64_t place_[kMaxAxes];
};

// Calls take(vector, exp(scores - maximum)) for the vectors of a row of n scores, in whole groups. Returns the sum of
// what take returns.
template <typename T, typename Take>
PYREG_INLINE double sum_of_exponentials(int64_t n, const T* scores, T maximum, Take take) {
  RowSum<T> sum;
  const int64_t groups_end = whole_groups<T>(n);
  for (int64_t begin = 0; begin < groups_end; begin += kSumBlock) {
    const int64_t end = groups_end - begin < kSumBlock ? groups_end : begin + kSumBlock;
    Accumulators<T> accumulators = sum.accumulators();
    for (int64_t at = begin; at < end; at += Group<T>::kCount) {
      PYREG_UNROLL
      for (int k = 0; k < Group<T>::kVecs; ++k) {
        const WholeVector<T> vector{at + k * Group<T>::kWidth, k, true};
        accumulators.v[k] += take(vector, exp<T>(vector.load(scores) - maximum));
      }
    }
    sum.put(accumulators, end, groups_end);
  }
  return sum.total();
}

// Writes the exponentials over the scores. Returns their sum.
template <typename T>
PYREG_NOINLINE double exponentials(int64_t n, T* scores, T maximum) {
  return sum_of_exponentials(n, scores, maximum, [&](auto vector, auto e) PYREG_LAMBDA {
    vector.store(scores, e);
    return e;
  });
}

// Writes the weights over the scores. Returns the sum of their products with dprob. kInfinite: for an infinite rsum,
// which no forward pass returns. It would turn the zeros after the row's end into NaN.
template <bool kInfinite, typename T>
PYREG_NOINLINE double probabilities(int64_t n, T* scores, T maximum, T rsum, const T* dprob) {
  return sum_of_exponentials(n, scores, maximum, [&](auto vector, auto e) PYREG_LAMBDA {
    const auto prob = e * rsum;
    vector.store(scores, prob);
    const auto product = prob * vector.load(dprob);
    if constexpr (kInfinite) {
      const int64_t left = n - vector.at < Group<T>::kWidth ? n - vector.at : Group<T>::kWidth;
      return first_lanes<T>(static_cast<int>(left)) ? product : decltype(product){};
    } else {
      return product;
    }
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
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next()) {
    const int64_t count = rows.count();
    const T maximum = rows.make(e);
    const double sum = exponentials(count, e, maximum);
    const T rsum = sum == 0 ? T{0} : static_cast<T>(1 / sum);
    a.maximum[r] = maximum;
    a.rsum[r] = rsum;
    fill_zeros(e, whole_groups<T>(count), n);
    const uint8_t* keep = nullptr;
    int64_t chunk_begin = 0;
    results.write_row(
        [&](int64_t begin, const MovedChunk&) PYREG_LAMBDA {
          keep = masks.chunk(begin);
          chunk_begin = begin;
        },
        [&](auto vector)
            PYREG_LAMBDA { return masked<T>(vector.load(e) * rsum, keep_scale, keep + (vector.at - chunk_begin)); });
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

// Writes dprob of the row dy, in whole groups. Only `count` scores have a weight; the elements after them are 0.
template <typename T>
PYREG_NOINLINE void drop_row(int64_t n, int64_t count, const T* dy, RowMasks& masks, T keep_scale, T* dprob) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
    const uint8_t* const keep = masks.chunk(begin);
    each_vector<T>(begin, end, [&](auto vector) PYREG_LAMBDA {
      vector.store(dprob, masked<T>(vector.load(dy), keep_scale, keep + (vector.at - begin)));
      fetch_row<From::cache>(vector, dy);
    });
  });
  fill_zeros(dprob, count, whole_groups<T>(n));
}

template <typename T, bool kNontemporal>
void softmax_dropout_backward_rows(const SoftmaxDropoutBackward<T>& a) {
  const int64_t n = a.scores.n;
  ScoreRows<T> rows(a.scores);
  RowMasks masks(a.scores.rows, n, a.threshold, a.key, a.offset);
  const T keep_scale = masks.scale<T>(), score_scale = a.scores.scale;
  RowWriter<T, kNontemporal> results(n, a.dx);
  T *const prob = a.scratch, *const dprob = a.scratch + whole_groups<T>(n);
  const T* dy = a.dy;
  for (int64_t r = 0; r < a.scores.rows; ++r, rows.next(), dy += n) {
    const int64_t count = rows.count();
    rows.make(prob);
    drop_row(n, count, dy, masks, keep_scale, dprob);
    const T rsum = a.rsum[r];
    const auto sum = rsum - rsum == 0 ? probabilities<false, T> : probabilities<true, T>;
    const T mean = static_cast<T>(sum(count, prob, a.maximum[r], rsum, dprob));
    fill_zeros(prob, count, n);
    results.write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
                      [&](auto vector)
                          PYREG_LAMBDA { return (vector.load(prob) * (vector.load(dprob) - mean)) * score_scale; });
  }
  results.finish();
}

// dx may be dy or x.
template <typename T>
void softmax_dropout_backward(const SoftmaxDropoutBackward<T>& a) {
  choose_stores<T>(a.nontemporal, a.scores.rows, a.scores.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    softmax_dropout_backward_rows<T, is_nontemporal.value>(a);
  });
}

}  // namespace
}  // namespace pyreg
