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

// x, y: rows of n, or columns; maximum, rsum: one element per row.
Reference forward(Arguments& a) {
  const Array x = a.array(), mask = a.optional_array();
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  SoftmaxOptions scores;
  scores.take(a, x, mask);
  const Array out = a.out({x}, {mask, scores.keep()});
  if (!a.good()) return {};

  Result y = result(out, x), maximum = scores.new_statistic(), rsum = scores.new_statistic();
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const Rows rows = scores.rows();
    const int64_t n = rows.n, bytes = 2 * x.bytes;
    const auto kernel = kernels<T>().softmax_dropout_forward;
    const RowsOrNeutral<T> masks(mask.as<const T>(), rows, kAddsNothing);
    if (scores.has_columns()) {
      const MadeDropout<T> drop(dropout, x.size);
      return each_tile_of_scores<T>(
          scores, 1, bytes, masks.from(0),
          [&](const ColumnTile& tile, const SoftmaxScores<T>& of_tile, T* rows, int64_t, T* scratch) {
            tile.copy_in(x.as<T>(), rows, kUnchanged);
            kernel({.scores = of_tile,
                    .threshold = drop.threshold(),
                    .key = 0,
                    .offset = 0,
                    .y = rows,
                    .maximum = maximum.as<T>() + tile.column_place(),
                    .rsum = rsum.as<T>() + tile.column_place(),
                    .scratch = scratch,
                    .nontemporal = false});
            drop.apply([&](auto change) { tile.copy_out(rows, y.as<T>(), change); });
          });
    }
    const bool nontemporal = outgrows_cache(bytes) && !y.replaces({x});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, nontemporal), bytes,
                                    softmax_scratch<T>(1, n), [&](int64_t begin, int64_t end, T* scratch) {
                                      kernel({.scores = scores.block<T>(begin, end, masks.from(0)),
                                              .threshold = dropout.threshold,
                                              .key = dropout.key,
                                              .offset = dropout.offset + begin * n,
                                              .y = y.as<T>() + begin * n,
                                              .maximum = maximum.as<T>() + begin,
                                              .rsum = rsum.as<T>() + begin,
                                              .scratch = scratch,
                                              .nontemporal = nontemporal});
                                    });
  });
  return forward_result.of({&y, &maximum, &rsum});
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
  SoftmaxOptions scores;
  scores.take(a, read, mask);
  for (const Array& statistic : {maximum, rsum}) scores.require_statistic(a, statistic);
  const Array out = a.out({read, dy}, {maximum, rsum, mask, scores.keep()});
  if (!a.good()) return {};

  Result dx = result(out, read);
  with_dtype(read, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const Rows rows = scores.rows();
    const int64_t n = rows.n, bytes = 3 * read.bytes;
    const auto kernel = kernels<T>().softmax_dropout_backward;
    const RowsOrNeutral<T> masks(mask.as<const T>(), rows, kAddsNothing);
    if (scores.has_columns()) {
      const MadeDropout<T> drop(dropout, read.size);
      return each_tile_of_scores<T>(
          scores, 2, bytes, masks.from(0),
          [&](const ColumnTile& tile, const SoftmaxScores<T>& of_tile, T* rows, int64_t step, T* scratch) {
            T* const dy_rows = rows + step;
            tile.copy_in(read.as<T>(), rows, kUnchanged);
            drop.apply([&](auto change) { tile.copy_in(dy.as<T>(), dy_rows, change); });
            kernel({.scores = of_tile,
                    .threshold = drop.threshold(),
                    .key = 0,
                    .offset = 0,
                    .from_weights = static_cast<bool>(y),
                    .dy = dy_rows,
                    .maximum = maximum.from<T>(tile.column_place()),
                    .rsum = rsum.from<T>(tile.column_place()),
                    .dx = dy_rows,
                    .scratch = scratch,
                    .nontemporal = false});
            tile.copy_out(dy_rows, dx.as<T>(), kUnchanged);
          });
    }
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({read, dy});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, nontemporal), bytes,
                                    softmax_scratch<T>(2, n), [&](int64_t begin, int64_t end, T* scratch) {
                                      kernel({.scores = scores.block<T>(begin, end, masks.from(0)),
                                              .threshold = dropout.threshold,
                                              .key = dropout.key,
                                              .offset = dropout.offset + begin * n,
                                              .from_weights = static_cast<bool>(y),
                                              .dy = dy.as<T>() + begin * n,
                                              .maximum = maximum.from<T>(begin),
                                              .rsum = rsum.from<T>(begin),
                                              .dx = dx.as<T>() + begin * n,
                                              .scratch = scratch,
                                              .nontemporal = nontemporal});
                                    });
  });
  return std::move(dx.reference);
}

const Functions functions{named<forward>("softmax_dropout_forward"), named<backward>("softmax_dropout_backward")};

}  // namespace
}  // namespace pyreg
