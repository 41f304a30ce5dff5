// Softmax along an axis that is not the last, by the kernels for rows.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "column_tiles.h"
#include "kernels/dropout_scale.h"
#include "row_blocks.h"
#include "softmax_options.h"
#include "whole_mask.h"

namespace pyreg {

// Dropout by a mask that is made beforehand, because columns do not follow the random stream.
template <typename T>
class MadeDropout {
 public:
  MadeDropout(const DropoutArguments& dropout, int64_t size)
      : threshold_(dropout.threshold == kDropAll ? kDropAll : 0) {
    if (dropout.threshold == 0 || dropout.threshold == kDropAll) return;
    scale_ = dropout_scale<T>(dropout.threshold);
    kept_.reset(new uint8_t[size]);
    make_whole_mask(dropout, size, kept_.get());
  }

  // The threshold that is left for the kernels: nothing or everything is dropped.
  uint64_t threshold() const { return threshold_; }

  // Calls copy(change), where change(value, place) is the value after dropout.
  template <typename Copy>
  void apply(Copy copy) const {
    if (kept_)
      copy([kept = kept_.get(), scale = scale_](T value, int64_t at) { return if_kept(value * scale, kept[at]); });
    else
      copy([](T value, int64_t) { return value; });
  }

 private:
  // value if kept is 1, +0 if it is 0: without a branch, which would be mispredicted as often as the mask changes.
  static T if_kept(T value, uint8_t kept) {
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    return std::bit_cast<T>(std::bit_cast<Bits>(value) & -static_cast<Bits>(kept));
  }

  uint64_t threshold_;
  T scale_ = 1;
  std::unique_ptr<uint8_t[]> kept_;
};

// The rows of an operand that broadcasts to x, for a tile of x's columns: (columns, n), or one of n for all of them.
template <typename E>
struct OperandRows {
  const E* first;
  int64_t step;  // n or 0
};

template <typename M, typename E>
OperandRows<E> gathered(const ColumnTile& tile, const Broadcast& operand, const Array& x, int axis, E* rows) {
  const auto place = [&](int64_t index, int begin, int end) {
    int64_t place = 0;
    for (int a = end - 1; a >= begin; index /= x.shape[a], --a) place += index % x.shape[a] * operand.strides[a];
    return place;
  };
  bool differs = false;
  for (int a = axis + 1; a < x.axes; ++a) differs |= operand.strides[a] != 0;
  ColumnTile taken = tile;
  if (!differs) taken.columns = 1;
  const M* columns[kLineBytes / sizeof(float)];
  for (int64_t column = 0; column < taken.columns; ++column)
    columns[column] =
        operand.as<const M>() + place(tile.slab, 0, axis) + place(tile.first + column, axis + 1, x.axes);
  const int64_t stride = operand.strides[axis], n = tile.n;
  taken.each([&](int64_t i, int64_t column) { rows[column * n + i] = widened(columns[column][i * stride]); });
  return {rows, differs ? n : 0};
}

// Calls run(tile, scores, rows, step, scratch) for each tile of columns. rows: for `arrays` arrays (columns, n),
// `step` elements apart; the first is x of the scores. scratch: the kernel's. bytes: moved by all. neutral: a row in
// place of the mask, if there is none.
template <typename S, typename T, typename Run>
void each_tile_of_scores(const SoftmaxOptions& options, int arrays, int64_t bytes, const T* neutral, Run run) {
  const Array& x = options.x();
  const Broadcast &mask = options.mask(), &keep = options.keep();
  const int axis = options.axis();
  const int64_t n = options.slabs().n;
  const ColumnTiles<T> tiles(options.slabs());
  const int64_t step = tiles.elements(), of_kernel = softmax_scratch<T>(arrays, n), of_mask = mask ? step : 0,
                of_keep = keep ? whole_lines<T>(step) / static_cast<int64_t>(sizeof(T)) : 0;
  const int64_t together = std::max<int64_t>(1, block_elements<T>(false) / std::max<int64_t>(1, step));
  parallel_blocks_with_scratch<T>(
      tiles.count(), together, bytes, of_kernel + arrays * step + of_mask + of_keep,
      [&](int64_t begin, int64_t end, T* scratch) {
        T *const rows = scratch + of_kernel, *const mask_rows = rows + arrays * step;
        for (int64_t at = begin; at < end; ++at) {
          const ColumnTile tile = tiles[at];
          OperandRows<T> masks{neutral, 0};
          OperandRows<uint8_t> keeps{nullptr, 0};
          if (mask)
            masks = mask.is_wide(x.type) ? gathered<float32>(tile, mask, x, axis, mask_rows)
                                         : gathered<S>(tile, mask, x, axis, mask_rows);
          if (keep) keeps = gathered<uint8_t>(tile, keep, x, axis, reinterpret_cast<uint8_t*>(mask_rows + of_mask));
          const SoftmaxScores<T> scores = {.rows = tile.columns,
                                           .n = n,
                                           .x = rows,
                                           .mask = masks.first,
                                           .wide = false,
                                           .keep = keeps.first,
                                           .scale = options.scale<T>(),
                                           .row = 0,
                                           .axes = 1,
                                           .lengths = &tile.columns,
                                           .mask_strides = &masks.step,
                                           .keep_strides = &keeps.step,
                                           .queries = 0,
                                           .query = 0,
                                           .first_sees = 0};
          run(tile, scores, rows, step, scratch);
        }
      });
}

}  // namespace pyreg
