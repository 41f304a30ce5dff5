// The scores x * scale + mask of softmax, row by row, and which of them are left.
#pragma once

#include "kernels/chunk_mask.h"
#include "kernels/row_sums.h"
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

}  // namespace
}  // namespace pyreg
