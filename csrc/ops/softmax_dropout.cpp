#include <cstdint>
#include <vector>

#include "dispatch.h"
#include "neutral_rows.h"
#include "ops/ops.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

using Axes = std::vector<int64_t>;

// The scores of an array, and of a block of its rows.
template <typename T>
class Scores {
 public:
  Scores(const py::array& x_array, const OptionalArray& mask_array, const Axes& lengths, const Axes& steps,
         int64_t queries, double scale)
      : size_(x_array.size()), rows_(1), queries_(queries), lengths_(lengths), steps_(steps) {
    require(lengths.size() == steps.size() && lengths.size() < kMaxAxes, "_core: lengths and steps do not match");
    for (const int64_t length : lengths) rows_ *= length;
    n_ = rows_ > 0 ? size_ / rows_ : 0;
    require(rows_ >= 0 && rows_ * n_ == size_ && queries >= 0, "_core: x is not rows of n");
    int64_t last = n_;  // behind the mask's last element
    for (size_t axis = 0; axis < lengths.size(); ++axis) {
      require(steps[axis] >= 0, "_core: a step is negative");
      if (rows_ > 0) last += (lengths[axis] - 1) * steps[axis];
    }
    x_ = in<T>(x_array, size_);
    mask_ = mask_array ? in<T>(*mask_array, mask_array->size()) : nullptr;
    require(!mask_ || rows_ == 0 || mask_array->size() >= last, "_core: the mask is too small");
    scale_ = static_cast<T>(scale);
  }

  int64_t size() const { return size_; }
  int64_t rows() const { return rows_; }
  int64_t n() const { return n_; }
  const T* x() const { return x_; }
  const T* mask() const { return mask_; }
  // A row of the scratch, in whole groups of lanes.
  int64_t scratch_row() const {
    constexpr int64_t kGroup = kGroupBytes / sizeof(T);
    return (n_ + kGroup - 1) / kGroup * kGroup;
  }
  // mask: the array's, or a row that changes nothing.
  SoftmaxScores<T> block(int64_t begin, int64_t end, const T* mask) const {
    return {.rows = end - begin,
            .n = n_,
            .x = x_ + begin * n_,
            .mask = mask,
            .scale = scale_,
            .row = begin,
            .axes = static_cast<int>(lengths_.size()),
            .lengths = lengths_.data(),
            .mask_strides = steps_.data(),
            .queries = queries_,
            .query = queries_ > 0 ? begin % queries_ : 0};
  }

 private:
  int64_t size_, rows_, n_, queries_;
  const Axes &lengths_, &steps_;
  const T *x_, *mask_;
  T scale_;
};

// x, y: rows of n; mask: rows of n too, which belong to those of x by lengths and steps, for each axis of x but the
// last; maximum, rsum: one per row. queries: the length of the last axis but one where causal, else 0.
void softmax_dropout_forward(const py::array& x_array, const OptionalArray& mask_array, const Axes& lengths,
                             const Axes& steps, int64_t queries, double scale, uint64_t threshold, uint64_t key,
                             uint64_t offset, py::array y_array, py::array maximum_array, py::array rsum_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const Scores<T> scores(x_array, mask_array, lengths, steps, queries, scale);
    const int64_t n = scores.n(), rows = scores.rows();
    T *y = out<T>(y_array, scores.size()), *maximum = out<T>(maximum_array, rows), *rsum = out<T>(rsum_array, rows);

    const ReleasedGil released;
    const auto kernel = kernels<T>().softmax_dropout_forward;
    const RowsOrNeutral<T> mask(scores.mask(), n, kAddsNothing);
    const int64_t bytes = 2 * scores.size() * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && y != scores.x();
    parallel_blocks_with_scratch<T>(rows, forward_block_rows<T>(n, nontemporal), bytes, scores.scratch_row(),
                                    [&](int64_t begin, int64_t end, T* row) {
                                      kernel({.scores = scores.block(begin, end, mask.from(0)),
                                              .threshold = threshold,
                                              .key = key,
                                              .offset = offset + begin * n,
                                              .y = y + begin * n,
                                              .maximum = maximum + begin,
                                              .rsum = rsum + begin,
                                              .scratch = row,
                                              .nontemporal = nontemporal});
                                    });
  });
}

// dy, x, dx: rows of n; the others as in the forward pass.
void softmax_dropout_backward(const py::array& dy_array, const py::array& x_array, const py::array& maximum_array,
                              const py::array& rsum_array, const OptionalArray& mask_array, const Axes& lengths,
                              const Axes& steps, int64_t queries, double scale, uint64_t threshold, uint64_t key,
                              uint64_t offset, py::array dx_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const Scores<T> scores(x_array, mask_array, lengths, steps, queries, scale);
    const int64_t n = scores.n(), rows = scores.rows();
    const T *dy = in<T>(dy_array, scores.size()), *maximum = in<T>(maximum_array, rows),
            *rsum = in<T>(rsum_array, rows);
    T* dx = out<T>(dx_array, scores.size());

    const ReleasedGil released;
    const auto kernel = kernels<T>().softmax_dropout_backward;
    const RowsOrNeutral<T> mask(scores.mask(), n, kAddsNothing);
    const int64_t bytes = 3 * scores.size() * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && dx != scores.x() && dx != dy;
    parallel_blocks_with_scratch<T>(rows, forward_block_rows<T>(n, nontemporal), bytes, 2 * scores.scratch_row(),
                                    [&](int64_t begin, int64_t end, T* two_rows) {
                                      kernel({.scores = scores.block(begin, end, mask.from(0)),
                                              .threshold = threshold,
                                              .key = key,
                                              .offset = offset + begin * n,
                                              .dy = dy + begin * n,
                                              .maximum = maximum + begin,
                                              .rsum = rsum + begin,
                                              .dx = dx + begin * n,
                                              .scratch = two_rows,
                                              .nontemporal = nontemporal});
                                    });
  });
}

}  // namespace

void bind_softmax_dropout(py::module_& m) {
  m.def("softmax_dropout_forward", softmax_dropout_forward, py::arg("x"), py::arg("mask"), py::arg("lengths"),
        py::arg("steps"), py::arg("queries"), py::arg("scale"), py::arg("threshold"), py::arg("key"),
        py::arg("index"), py::arg("y"), py::arg("maximum"), py::arg("rsum"));
  m.def("softmax_dropout_backward", softmax_dropout_backward, py::arg("dy"), py::arg("x"), py::arg("maximum"),
        py::arg("rsum"), py::arg("mask"), py::arg("lengths"), py::arg("steps"), py::arg("queries"), py::arg("scale"),
        py::arg("threshold"), py::arg("key"), py::arg("index"), py::arg("dx"));
}

}  // namespace pyreg
