// An array whose shape broadcasts to that of x.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "kernels/table.h"

namespace pyreg {

struct Broadcast : Array {
  int64_t strides[kMaxAxes] = {};  // for each axis of x, in elements; 0 along an axis of length 1 or none

  void take(Arguments& a, const Array& x, const Array& array) {
    static_cast<Array&>(*this) = array;
    a.require(array.axes <= x.axes);
    if (!a.good_so_far()) return;
    int64_t stride = 1;
    for (int own = array.axes - 1, axis = x.axes - 1; own >= 0; --own, --axis) {
      const int64_t length = array.shape[own];
      a.require(length == 1 || length == x.shape[axis]);
      strides[axis] = length == 1 ? 0 : stride;
      stride *= length;
    }
  }

  // Whether an element is given for each place along this axis of x, one next to the other.
  bool is_contiguous_along(const Array& x, int axis) const { return strides[axis] == 1 || x.shape[axis] == 1; }
};

}  // namespace pyreg
