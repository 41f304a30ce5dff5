#include <cstdint>

#include "dispatch.h"
#include "functions.h"
#include "neutral_rows.h"
#include "row_blocks.h"
#include "softmax_columns.h"
#include "softmax_options.h"

namespace pyreg {
namespace {

const NamedTuple forward_result("SoftmaxDropoutForward");

// Leaves a value as it is: ColumnTile::copy_in.
constexpr auto kUnchanged = [](auto value, int64_t) {
  return value;
};

// `all`, here and below: the kernel's arguments for the whole array, but for the scores and the scratch. mask: its
// first row, or a neutral one. bytes: moved by the call.
template <typename T>
void forward_along_rows(const SoftmaxDropoutForward<T>& all, const SoftmaxOptions& options, const T* mask,
                        int64_t bytes) {
  const Rows rows = options.rows();
  const int64_t n = rows.n;
  const auto kernel = kernels<T>().softmax_dropout_forward;
  parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, all.nontemporal), bytes,
                                  softmax_scratch<T>(1, n), [&](int64_t begin, int64_t end, T* scratch) {
                                    SoftmaxDropoutForward<T> part = all;
                                    part.scores = options.block<T>(begin, end, mask);
                                    part.offset += begin * n, part.y += begin * n;
                                    part.maximum += begin, part.rsum += begin;
                                    part.scratch = scratch;
                                    kernel(part);
                                  });
}

// Tiles of columns are copied to rows, and the results back.
template <typename T>
void forward_along_columns(const SoftmaxDropoutForward<T>& all, const SoftmaxOptions& options,
                           const DropoutArguments& dropout, const T* mask, int64_t bytes) {
  const Array& x = options.x();
  const MadeDropout<T> drop(dropout, x.size);
  const auto kernel = kernels<T>().softmax_dropout_forward;
  each_tile_of_scores<T>(options, 1, bytes, mask,
                         [&](const ColumnTile& tile, const SoftmaxScores<T>& scores, T* rows, int64_t, T* scratch) {
                           tile.copy_in(x.as<T>(), rows, kUnchanged);
                           SoftmaxDropoutForward<T> part = all;
                           part.scores = scores, part.threshold = drop.threshold(), part.nontemporal = false;
                           part.y = rows, part.scratch = scratch;
                           part.maximum += tile.column_place(), part.rsum += tile.column_place();
                           kernel(part);
                           drop.apply([&](auto change) { tile.copy_out(rows, all.y, change); });
                         });
}

// x, y: rows of n, or columns; maximum, rsum: one element per row.
Reference forward(Arguments& a) {
  const Array x = a.array(), mask = a.optional_array();
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  SoftmaxOptions options;
  options.take(a, x, mask);
  const Array out = a.out({x}, {mask, options.keep()});
  if (!a.good()) return {};

  Result y = result(out, x), maximum = options.new_statistic(), rsum = options.new_statistic();
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const int64_t bytes = 2 * x.bytes;
    const RowsOrNeutral<T> masks(mask.as<const T>(), options.rows(), kAddsNothing);
    const SoftmaxDropoutForward<T> all = {.scores = {},
                                          .threshold = dropout.threshold,
                                          .key = dropout.key,
                                          .offset = dropout.offset,
                                          .y = y.as<T>(),
                                          .maximum = maximum.as<T>(),
                                          .rsum = rsum.as<T>(),
                                          .scratch = nullptr,
                                          .nontemporal = outgrows_cache(bytes) && !y.replaces({x})};
    if (options.has_columns())
      forward_along_columns<T>(all, options, dropout, masks.from(0), bytes);
    else
      forward_along_rows<T>(all, options, masks.from(0), bytes);
  });
  return forward_result.of({&y, &maximum, &rsum});
}

template <typename T>
void backward_along_rows(const SoftmaxDropoutBackward<T>& all, const SoftmaxOptions& options, const T* mask,
                         int64_t bytes) {
  const Rows rows = options.rows();
  const int64_t n = rows.n;
  const auto kernel = kernels<T>().softmax_dropout_backward;
  parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, all.nontemporal), bytes,
                                  softmax_scratch<T>(2, n), [&](int64_t begin, int64_t end, T* scratch) {
                                    SoftmaxDropoutBackward<T> part = all;
                                    part.scores = options.block<T>(begin, end, mask);
                                    part.offset += begin * n, part.dy += begin * n, part.dx += begin * n;
                                    if (!all.from_weights) part.maximum += begin, part.rsum += begin;
                                    part.scratch = scratch;
                                    kernel(part);
                                  });
}

template <typename T>
void backward_along_columns(const SoftmaxDropoutBackward<T>& all, const SoftmaxOptions& options,
                            const DropoutArguments& dropout, const T* mask, int64_t bytes) {
  const Array& x = options.x();
  const MadeDropout<T> drop(dropout, x.size);
  const auto kernel = kernels<T>().softmax_dropout_backward;
  each_tile_of_scores<T>(
      options, 2, bytes, mask,
      [&](const ColumnTile& tile, const SoftmaxScores<T>& scores, T* rows, int64_t step, T* scratch) {
        T* const dy_rows = rows + step;
        tile.copy_in(x.as<T>(), rows, kUnchanged);
        drop.apply([&](auto change) { tile.copy_in(all.dy, dy_rows, change); });
        SoftmaxDropoutBackward<T> part = all;
        part.scores = scores, part.threshold = drop.threshold(), part.nontemporal = false;
        part.dy = dy_rows, part.dx = dy_rows, part.scratch = scratch;
        if (!all.from_weights) part.maximum += tile.column_place(), part.rsum += tile.column_place();
        kernel(part);
        tile.copy_out(dy_rows, all.dx, kUnchanged);
      });
}

// dy, x, dx: as x in the forward pass, and the others too. y may be given instead of x, maximum and rsum.
Reference backward(Arguments& a) {
  const Array dy = a.array(), x = a.optional_array(), maximum = a.optional_array(), rsum = a.optional_array(),
              mask = a.optional_array(), y = a.optional_array();
  a.require(y ? !x && !maximum && !rsum && !mask : x && maximum && rsum);
  const Array& read = y ? y : x;
  a.require_shape(dy, read);
  const DropoutArguments dropout = a.dropout(dy.size);
  a.require(!y || dropout.threshold == 0);
  SoftmaxOptions options;
  options.take(a, read, mask);
  for (const Array& statistic : {maximum, rsum}) options.require_statistic(a, statistic);
  const Array out = a.out({read, dy}, {maximum, rsum, mask, options.keep()});
  if (!a.good()) return {};

  Result dx = result(out, read);
  with_dtype(read, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const int64_t bytes = 3 * read.bytes;
    const RowsOrNeutral<T> masks(mask.as<const T>(), options.rows(), kAddsNothing);
    const SoftmaxDropoutBackward<T> all = {.scores = {},
                                           .threshold = dropout.threshold,
                                           .key = dropout.key,
                                           .offset = dropout.offset,
                                           .from_weights = static_cast<bool>(y),
                                           .dy = dy.as<T>(),
                                           .maximum = maximum.as<T>(),
                                           .rsum = rsum.as<T>(),
                                           .dx = dx.as<T>(),
                                           .scratch = nullptr,
                                           .nontemporal = outgrows_cache(bytes) && !dx.replaces({read, dy})};
    if (options.has_columns())
      backward_along_columns<T>(all, options, dropout, masks.from(0), bytes);
    else
      backward_along_rows<T>(all, options, masks.from(0), bytes);
  });
  return std::move(dx.reference);
}

const Functions functions{named<forward>("softmax_dropout_forward"), named<backward>("softmax_dropout_backward")};

}  // namespace
}  // namespace pyreg
