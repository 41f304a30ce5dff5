// What softmax is applied to: the scores x * scale + mask along an axis, of which causal and `keep` leave some.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "broadcast.h"
#include "column_tiles.h"

namespace pyreg {

class SoftmaxOptions {
 public:
  // Reads scale, causal, keep and axis. The shapes of the mask and of keep must broadcast to x's.
  void take(Arguments& a, const Array& x, const Array& mask) {
    x_ = x;
    scale_ = a.finite(compute_type(x.type));
    take_causal(a);
    const Array keep = a.optional_array(Type::boolean);
    axis_ = a.axis_of(x);
    a.require(!causal_ || (x.axes > 1 && axis_ == x.axes - 1));
    mask_.take(a, x, mask);
    keep_.take(a, x, keep);
    if (!a.good_so_far()) return;
    slabs_ = {1, x.shape[axis_], 1};
    for (int axis = 0, place = 0; axis < x.axes; ++axis) {
      if (axis == axis_) continue;
      lengths_[place++] = x.shape[axis];
      (axis < axis_ ? slabs_.outer : slabs_.inner) *= x.shape[axis];
    }
    if (has_columns()) return;
    a.require(!mask || mask_.is_contiguous_along(x, axis_));
    a.require(!keep || keep_.is_contiguous_along(x, axis_));
  }
  void require_statistic(Arguments& a, const Array& statistic) const {
    a.require_shape(statistic, x_.axes - 1, lengths_);
  }

  const Array& x() const { return x_; }
  const Broadcast& mask() const { return mask_; }
  const Broadcast& keep() const { return keep_; }
  int axis() const { return axis_; }
  const Slabs& slabs() const { return slabs_; }
  template <typename T>
  T scale() const {
    return static_cast<T>(scale_);
  }

  // Whether the scores of a softmax are apart in memory; else they are rows.
  bool has_columns() const { return slabs_.inner > 1; }
  Rows rows() const { return {.count = slabs_.outer * slabs_.inner, .n = slabs_.n, .axes = 1}; }
  // An array with one element per softmax.
  Result new_statistic() const { return new_array(compute_type(x_.type), x_.axes - 1, lengths_); }

  // Rows begin, ..., end - 1. neutral: a row in place of the mask, if there is none.
  template <typename S>
  SoftmaxScores<S> block(int64_t begin, int64_t end, const S* neutral) const {
    const int64_t n = slabs_.n, queries = causal_ ? lengths_[axis_ - 1] : 0;
    return {.rows = end - begin,
            .n = n,
            .x = x_.as<S>() + begin * n,
            .mask = mask_ ? mask_.data : neutral,
            .wide = mask_.is_wide(x_.type),
            .keep = keep_.as<uint8_t>(),
            .scale = scale<Compute<S>>(),
            .row = begin,
            .axes = axis_,
            .lengths = lengths_,
            .mask_strides = mask_.strides,
            .keep_strides = keep_.strides,
            .queries = queries,
            .query = queries > 0 ? begin % queries : 0,
            .first_sees = lower_right_ ? 1 + n - queries : 1};
  }

 private:
  // A flag, or the corner of the (queries, keys) from which the diagonal starts.
  void take_causal(Arguments& a) {
    PyObject* const argument = a.object();
    if (argument == Py_True || argument == Py_False) {
      causal_ = argument == Py_True;
      return;
    }
    Arguments alone(&argument, 1);
    const std::string_view corner = alone.text();
    causal_ = true, lower_right_ = corner == "lower_right";
    a.require(lower_right_ || corner == "upper_left");
  }

  Array x_;
  Broadcast mask_, keep_;
  int axis_ = 0;
  int64_t lengths_[kMaxAxes];  // of x's axes but this one
  Slabs slabs_{0, 0, 0};       // softmax runs along n
  double scale_ = 1;
  bool causal_ = false, lower_right_ = false;
};

}  // namespace pyreg
