// The scores x * scale + mask of softmax, with the keys that causal and `keep` leave: of an array and of a block of
// its rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "broadcast.h"

namespace pyreg {

class SoftmaxOptions {
 public:
  // Reads scale, causal, keep and axis. The shapes of the mask and of keep must broadcast to x's.
  void take(Arguments& a, const Array& x, const Array& mask) {
    x_ = x;
    scale_ = a.finite(x.type);
    take_causal(a);
    const Array keep = a.optional_array(Type::boolean);
    axis_ = x.axes - 1;
    a.require(x.axes > (causal_ ? 1 : 0));
    mask_.take(a, x, mask);
    keep_.take(a, x, keep);
    if (!a.good_so_far()) return;
    std::copy_n(x.shape, axis_, lengths_);
    a.require(!mask || mask_.is_contiguous_along(x, axis_));
    a.require(!keep || keep_.is_contiguous_along(x, axis_));
  }
  void require_statistic(Arguments& a, const Array& statistic) const { a.require_shape(statistic, axis_, lengths_); }

  const Array& keep() const { return keep_; }
  Result new_statistic() const { return new_array(x_.type, axis_, lengths_); }

  Rows rows() const {
    const int64_t n = x_.shape[axis_];
    int64_t count = 1;
    for (int axis = 0; axis < axis_; ++axis) count *= x_.shape[axis];
    return {.count = count, .n = n, .axes = 1};
  }

  // Rows begin, ..., end - 1. mask: that of the array, or a neutral row.
  template <typename T>
  SoftmaxScores<T> block(int64_t begin, int64_t end, const T* mask) const {
    const int64_t n = x_.shape[axis_], queries = causal_ ? lengths_[axis_ - 1] : 0;
    return {.rows = end - begin,
            .n = n,
            .x = x_.as<T>() + begin * n,
            .mask = mask,
            .keep = keep_.as<uint8_t>(),
            .scale = static_cast<T>(scale_),
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
  int64_t lengths_[kMaxAxes];
  double scale_ = 1;
  bool causal_ = false, lower_right_ = false;
};

}  // namespace pyreg
