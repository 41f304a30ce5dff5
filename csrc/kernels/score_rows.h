// The scores x * scale + mask of softmax, row by row, and which of them are left.
#pragma once

#include "kernels/chunk_mask.h"
#include "kernels/row_sums.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

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

// The rows of scores, one after the other.
template <typename S>
class ScoreRows {
  using T = Compute<S>;

 public:
  explicit ScoreRows(const SoftmaxScores<S>& s)
      : s_(s),
        x_(s.x),
        mask_(static_cast<const char*>(s.mask)),
        mask_bytes_(s.wide ? sizeof(T) : sizeof(S)),
        keep_(s.keep),
        query_(s.query) {
    int64_t row = s.row;
    for (int axis = s.axes - 1; axis >= 0; row /= s.lengths[axis], --axis) {
      place_[axis] = row % s.lengths[axis];
      mask_ += place_[axis] * s.mask_strides[axis] * mask_bytes_;
      keep_ += place_[axis] * s.keep_strides[axis];
    }
  }

  PYREG_INLINE const S* x() const { return x_; }

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
  PYREG_INLINE T make(const uint8_t* kept, T* scores) const {
    if constexpr (kHalf<S>)
      if (s_.wide) return make_with<kKeep>(kept, reinterpret_cast<const float32*>(mask_), scores);
    return make_with<kKeep>(kept, reinterpret_cast<const S*>(mask_), scores);
  }

  void next() {
    x_ += s_.n;
    if (s_.queries > 0 && ++query_ == s_.queries) query_ = 0;
    for (int axis = s_.axes - 1; axis >= 0; --axis) {
      mask_ += s_.mask_strides[axis] * mask_bytes_;
      keep_ += s_.keep_strides[axis];
      if (++place_[axis] < s_.lengths[axis]) return;
      mask_ -= s_.mask_strides[axis] * s_.lengths[axis] * mask_bytes_;
      keep_ -= s_.keep_strides[axis] * s_.lengths[axis];
      place_[axis] = 0;
    }
  }

 private:
  static constexpr T kNone = -static_cast<T>(__builtin_inf());

  template <bool kKeep, typename M>
  PYREG_NOINLINE T make_with(const uint8_t* kept, const M* mask, T* scores) const {
    constexpr int kWidth = Group<S>::kWidth;
    const int64_t n = s_.n, some = count(), whole = some / Group<S>::kCount * Group<S>::kCount;
    const S* const x = x_;
    const T score_scale = s_.scale;
    const auto none = typename Native<S>::vec{} + kNone;
    Accumulators<S> largest;
    PYREG_UNROLL
    for (auto& v : largest.v) v = none;
    for (int64_t at = 0; at < whole; at += Group<S>::kCount)
      each_of_group<S>([&](int k) PYREG_LAMBDA {
        const WholeVector<S> vector{at + k * kWidth, k, true};
        auto s = vector.load(x) * score_scale + vector.load(mask);
        if constexpr (kKeep) s = kept_lanes<T>(vector, kept) ? s : none;
        largest.v[k] = larger(s, largest.v[k]);
        vector.store(scores, s);
        fetch_row<From::cache>(vector, x);
      });
    // Less than a group is left. Its last part may be beyond the row's end, or beyond the query.
    const auto take = [&](auto vector) PYREG_LAMBDA {
      auto s = vector.load(x) * score_scale + vector.load(mask);
      if constexpr (kKeep)
        s = kept_lanes<T>(vector, kept) ? s : none;
      else
        s = vector.before(some) ? s : none;
      largest.v[0] = larger(s, largest.v[0]);
      std::memcpy(scores + vector.at, &s, sizeof s);
    };
    for (int64_t at = whole; at < some; at += kStep<S>) {
      PYREG_UNROLL
      for (int k = 0; k < kStep<S> / kWidth; ++k) {
        if (at + kStep<S> <= n)
          take(WholeVector<S>{at + k * kWidth, k, true});
        else
          take(PartVector<S>{at + k * kWidth, k, static_cast<int>(n - at)});
      }
    }
    const T maximum = largest.halved([](auto a, auto b) PYREG_LAMBDA { return larger(a, b); });
    // Adding 0 turns -0 into +0.
    return maximum == kNone ? T{0} : maximum + T{0};
  }

  const SoftmaxScores<S>& s_;
  const S* x_;
  const char* mask_;
  int64_t mask_bytes_;  // of an element
  const uint8_t* keep_;
  int64_t query_;
  int64_t place_[kMaxAxes];
};

}  // namespace
}  // namespace pyreg
