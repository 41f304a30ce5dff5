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

// `all`, here and below: the kernel's arguments for the whole array, but for the scores and the scratch. neutral: a
// row in place of the mask, if there is none. bytes: moved by the call.
template <typename S>
void forward_along_rows(const SoftmaxDropoutForward<S>& all, const SoftmaxOptions& options, const S* neutral,
                        int64_t bytes) {
  using T = Compute<S>;
  const Rows rows = options.rows();
  const int64_t n = rows.n;
  const auto kernel = kernels<S>().softmax_dropout_forward;
  parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<S>(n, all.nontemporal), bytes,
                                  softmax_scratch<T>(1, n), [&](int64_t begin, int64_t end, T* scratch) {
                                    SoftmaxDropoutForward<S> part = all;
                                    part.scores = options.block<S>(begin, end, neutral);
                                    part.offset += begin * n, part.y += begin * n;
                                    part.maximum += begin, part.rsum += begin;
                                    part.scratch = scratch;
                                    kernel(part);
                                  });
}

// Tiles of columns are copied to rows of T, and the results back.
template <typename S, typename T>
void forward_along_columns(const SoftmaxDropoutForward<S>& all, const SoftmaxOptions& options,
                           const DropoutArguments& dropout, const T* neutral, int64_t bytes) {
  const Array& x = options.x();
  const MadeDropout<T> drop(dropout, x.size);
  const auto kernel = kernels<T>().softmax_dropout_forward;
  each_tile_of_scores<S>(options, 1, bytes, neutral,
                         [&](const ColumnTile& tile, const SoftmaxScores<T>& scores, T* rows, int64_t, T* scratch) {
                           tile.copy_in(x.as<const S>(), rows, kUnchanged);
                           kernel({.scores = scores,
                                   .threshold = drop.threshold(),
                                   .key = all.key,
                                   .offset = all.offset,
                                   .y = rows,
                                   .maximum = all.maximum + tile.column_place(),
                                   .rsum = all.rsum + tile.column_place(),
                                   .scratch = scratch,
                                   .nontemporal = false});
                           drop.apply([&](auto change) { tile.copy_out(rows, all.y, change); });
                         });
}

// x, y: rows of n, or columns; maximum, rsum: one element per row.
Reference forward(Arguments& a) {
  const Array x = a.array(), mask = a.optional_parameter();
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  SoftmaxOptions options;
  options.take(a, x, mask);
  const Array out = a.out({x}, {mask, options.keep()});
  if (!a.good()) return {};

  Result y = result(out, x), maximum = options.new_statistic(), rsum = options.new_statistic();
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    const int64_t bytes = 2 * x.bytes;
    const SoftmaxDropoutForward<S> all = {.scores = {},
                                          .threshold = dropout.threshold,
                                          .key = dropout.key,
                                          .offset = dropout.offset,
                                          .y = y.as<S>(),
                                          .maximum = maximum.as<T>(),
                                          .rsum = rsum.as<T>(),
                                          .scratch = nullptr,
                                          .nontemporal = outgrows_cache(bytes) && !y.replaces({x})};
    const int64_t n_neutral = mask ? 0 : options.rows().read();
    if (options.has_columns())
      forward_along_columns<S>(all, options, dropout, NeutralRow<T>(n_neutral, kAddsNothing).get(), bytes);
    else
      forward_along_rows<S>(all, options, NeutralRow<S>(n_neutral, kAddsNothing).get(), bytes);
  });
  return forward_result.of({&y, &maximum, &rsum});
}

template <typename S>
void backward_along_rows(const SoftmaxDropoutBackward<S>& all, const SoftmaxOptions& options, const S* neutral,
                         int64_t bytes) {
  using T = Compute<S>;
  const Rows rows = options.rows();
  const int64_t n = rows.n;
  const auto kernel = kernels<S>().softmax_dropout_backward;
  parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<S>(n, all.nontemporal), bytes,
                                  softmax_scratch<T>(2, n), [&](int64_t begin, int64_t end, T* scratch) {
                                    SoftmaxDropoutBackward<S> part = all;
                                    part.scores = options.block<S>(begin, end, neutral);
                                    part.offset += begin * n, part.dy += begin * n, part.dx += begin * n;
                                    if (!all.from_weights) part.maximum += begin, part.rsum += begin;
                                    part.scratch = scratch;
                                    kernel(part);
                                  });
}

template <typename S, typename T>
void backward_along_columns(const SoftmaxDropoutBackward<S>& all, const SoftmaxOptions& options,
                            const DropoutArguments& dropout, const T* neutral, int64_t bytes) {
  const Array& x = options.x();
  const MadeDropout<T> drop(dropout, x.size);
  const auto kernel = kernels<T>().softmax_dropout_backward;
  each_tile_of_scores<S>(
      options, 2, bytes, neutral,
      [&](const ColumnTile& tile, const SoftmaxScores<T>& scores, T* rows, int64_t step, T* scratch) {
        T* const dy_rows = rows + step;
        tile.copy_in(x.as<const S>(), rows, kUnchanged);
        drop.apply([&](auto change) { tile.copy_in(all.dy, dy_rows, change); });
        const int64_t place = all.from_weights ? 0 : tile.column_place();
        kernel({.scores = scores,
                .threshold = drop.threshold(),
                .key = all.key,
                .offset = all.offset,
                .from_weights = all.from_weights,
                .dy = dy_rows,
                .maximum = all.maximum + place,
                .rsum = all.rsum + place,
                .dx = dy_rows,
                .scratch = scratch,
                .nontemporal = false});
        tile.copy_out(dy_rows, all.dx, kUnchanged);
      });
}

// dy, x, dx: as x in the forward pass, and the others too. y may be given instead of x, maximum and rsum.
Reference backward(Arguments& a) {
  const Array dy = a.array(), x = a.optional_array(), maximum = a.optional_statistic(), rsum = a.optional_statistic(),
              mask = a.optional_parameter(), y = a.optional_array();
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
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    const int64_t bytes = 3 * read.bytes;
    const SoftmaxDropoutBackward<S> all = {.scores = {},
                                           .threshold = dropout.threshold,
                                           .key = dropout.key,
                                           .offset = dropout.offset,
                                           .from_weights = static_cast<bool>(y),
                                           .dy = dy.as<S>(),
                                           .maximum = maximum.as<T>(),
                                           .rsum = rsum.as<T>(),
                                           .dx = dx.as<S>(),
                                           .scratch = nullptr,
                                           .nontemporal = outgrows_cache(bytes) && !dx.replaces({read, dy})};
    const int64_t n_neutral = mask ? 0 : options.rows().read();
    if (options.has_columns())
      backward_along_columns<S>(all, options, dropout, NeutralRow<T>(n_neutral, kAddsNothing).get(), bytes);
    else
      backward_along_rows<S>(all, options, NeutralRow<S>(n_neutral, kAddsNothing).get(), bytes);
  });
  return std::move(dx.reference);
}

const Functions functions{named<forward>("softmax_dropout_forward"), named<backward>("softmax_dropout_backward")};

}  // namespace
}  // namespace pyreg
