#include <cstdint>

#include "dispatch.h"
#include "functions.h"
#include "neutral_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple forward_result("SoftmaxDropoutForward");

// The scores x * scale + mask, of an array and of a block of its rows.
class Scores {
 public:
  // The mask's shape must broadcast to x's, and its rows must be as long as x's.
  void take_arrays(Arguments& a, const Array& x, const Array& mask) {
    x_ = x, mask_ = mask, axes_ = x.axes - 1;
    a.require(x.axes > 0 && mask.axes <= x.axes && (!mask || mask.axes > 0));
    if (!a.good_so_far()) return;
    n_ = x.shape[axes_];
    for (int axis = 0; axis < axes_; ++axis) lengths_[axis] = x.shape[axis], rows_ *= x.shape[axis];
    if (!mask) return;
    a.require(mask.shape[mask.axes - 1] == n_);
    int64_t stride = n_;
    for (int axis = axes_ - 1, of_mask = mask.axes - 2; of_mask >= 0; --axis, --of_mask) {
      const int64_t length = mask.shape[of_mask];
      a.require(length == 1 || length == x.shape[axis]);
      mask_strides_[axis] = length == 1 ? 0 : stride;
      stride *= length;
    }
  }
  void take_scale_and_causal(Arguments& a) {
    scale_ = a.finite(x_.type);
    causal_ = a.flag();
    a.require(!causal_ || axes_ > 0);
  }

  Rows rows() const { return {.count = rows_, .n = n_, .axes = 1}; }
  // The number of axes of an array with one element per row.
  int axes() const { return axes_; }
  template <typename T>
  const T* mask() const {
    return mask_.as<const T>();
  }
  // mask: that of the array, or a neutral row.
  template <typename T>
  SoftmaxScores<T> block(int64_t begin, int64_t end, const T* mask) const {
    const int64_t queries = causal_ ? lengths_[axes_ - 1] : 0;
    return {.rows = end - begin,
            .n = n_,
            .x = x_.as<T>() + begin * n_,
            .mask = mask,
            .scale = static_cast<T>(scale_),
            .row = begin,
            .axes = axes_,
            .lengths = lengths_,
            .mask_strides = mask_strides_,
            .queries = queries,
            .query = queries > 0 ? begin % queries : 0};
  }

 private:
  Array x_, mask_;
  int axes_ = 0;  // of x, without the last one
  int64_t rows_ = 1, n_ = 0;
  int64_t lengths_[kMaxAxes], mask_strides_[kMaxAxes] = {};
  double scale_ = 1;
  bool causal_ = false;
};

// x, y: rows of n; maximum, rsum: one per row.
Reference forward(Arguments& a) {
  const Array x = a.array(), mask = a.optional_array();
  Scores scores;
  scores.take_arrays(a, x, mask);
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  scores.take_scale_and_causal(a);
  const Array out = a.out({x}, {mask});
  if (!a.good()) return {};

  Result y = result(out, x), maximum = new_array(x.type, scores.axes(), x.shape),
         rsum = new_array(x.type, scores.axes(), x.shape);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const Rows rows = scores.rows();
    const int64_t n = rows.n, bytes = 2 * x.bytes;
    const auto kernel = kernels<T>().softmax_dropout_forward;
    const RowsOrNeutral<T> masks(scores.mask<T>(), rows, kAddsNothing);
    const bool nontemporal = outgrows_cache(bytes) && !y.replaces({x});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, nontemporal), bytes, whole_groups<T>(n),
                                    [&](int64_t begin, int64_t end, T* row) {
                                      kernel({.scores = scores.block<T>(begin, end, masks.from(0)),
                                              .threshold = dropout.threshold,
                                              .key = dropout.key,
                                              .offset = dropout.offset + begin * n,
                                              .y = y.as<T>() + begin * n,
                                              .maximum = maximum.as<T>() + begin,
                                              .rsum = rsum.as<T>() + begin,
                                              .scratch = row,
                                              .nontemporal = nontemporal});
                                    });
  });
  return forward_result.of({&y, &maximum, &rsum});
}

// dy, x, dx: rows of n; the others as in the forward pass.
Reference backward(Arguments& a) {
  const Array dy = a.array(), x = a.array(), maximum = a.array(), rsum = a.array(), mask = a.optional_array();
  Scores scores;
  scores.take_arrays(a, x, mask);
  a.require_shape(dy, x);
  for (const Array& statistic : {maximum, rsum}) a.require_shape(statistic, x.axes - 1, x.shape);
  const DropoutArguments dropout = a.dropout(x.size);
  scores.take_scale_and_causal(a);
  const Array out = a.out({x, dy}, {maximum, rsum, mask});
  if (!a.good()) return {};

  Result dx = result(out, x);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const Rows rows = scores.rows();
    const int64_t n = rows.n, bytes = 3 * x.bytes;
    const auto kernel = kernels<T>().softmax_dropout_backward;
    const RowsOrNeutral<T> masks(scores.mask<T>(), rows, kAddsNothing);
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({x, dy});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, nontemporal), bytes,
                                    2 * whole_groups<T>(n), [&](int64_t begin, int64_t end, T* two_rows) {
                                      kernel({.scores = scores.block<T>(begin, end, masks.from(0)),
                                              .threshold = dropout.threshold,
                                              .key = dropout.key,
                                              .offset = dropout.offset + begin * n,
                                              .dy = dy.as<T>() + begin * n,
                                              .maximum = maximum.as<T>() + begin,
                                              .rsum = rsum.as<T>() + begin,
                                              .dx = dx.as<T>() + begin * n,
                                              .scratch = two_rows,
                                              .nontemporal = nontemporal});
                                    });
  });
  return std::move(dx.reference);
}

const Functions functions{named<forward>("softmax_dropout_forward"), named<backward>("softmax_dropout_backward")};

}  // namespace
}  // namespace pyreg
