#include "dispatch.h"
#include "functions.h"
#include "neutral_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple forward_result("LayerNormForward"), backward_result("LayerNormBackward");

// x, y: rows of n; weight, bias (n); mean, rstd: one per row.
template <bool kStatistics>
Reference forward(Arguments& a) {
  const Array x = a.array(), weight = a.optional_array(), bias = a.optional_array();
  const Rows rows = a.normalized_rows(x, {weight, bias});
  const double eps = a.number();
  const Array out = a.out({x}, {weight, bias});
  if (!a.good()) return {};

  Result y = result(out, x), mean, rstd;
  if constexpr (kStatistics) mean = statistic(Type::float64, x, rows), rstd = statistic(x.type, x, rows);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    if (!kStatistics && x.size == 0) return;
    const int64_t n = rows.n;
    const RowsOrNeutral<T> weights(weight.as<T>(), rows, kMultipliesByOne), biases(bias.as<T>(), rows, kAddsNothing);
    const auto kernel = kernels<T>().layer_norm_forward;
    const bool nontemporal = outgrows_cache(2 * x.bytes) && !y.replaces({x});
    const int64_t block = forward_block_rows<T>(n, nontemporal);
    parallel_blocks(rows.count, block, 2 * x.bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, n, x.as<T>() + begin * n, weights.from(0), biases.from(0), eps, y.as<T>() + begin * n,
             mean.from<double>(begin), rstd.from<T>(begin), nontemporal);
    });
  });
  return kStatistics ? forward_result.of({&y, &mean, &rstd}) : std::move(y.reference);
}

// dy, x, dx: rows of n; mean, rstd: one per row; weight, dweight, dbias: all (n), or all missing.
Reference backward(Arguments& a) {
  const Array dy = a.array(), x = a.array(), mean = a.array(Type::float64), rstd = a.array(),
              weight = a.optional_array();
  const Rows rows = a.rows_of(x, mean, {weight});
  a.require_shape(dy, x);
  a.require_shape(rstd, mean);
  const Array out = a.out({x, dy}, {mean, rstd, weight});
  if (!a.good()) return {};

  Result dx = result(out, x), dweight = gradient_of(weight), dbias = gradient_of(weight);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const int64_t n = rows.n, bytes = 3 * x.bytes;
    const auto kernel = kernels<T>().layer_norm_backward;
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({x, dy});
    T* const totals[] = {dweight.as<T>(), dbias.as<T>()};
    sum_over_rows<T>(rows.count, weight.size, bytes, dx.as<T>(), totals, [&](int64_t begin, int64_t end, auto& sums) {
      kernel(end - begin, n, dy.as<T>() + begin * n, x.as<T>() + begin * n, mean.as<double>() + begin,
             rstd.as<T>() + begin, weight.as<T>(), dx.as<T>() + begin * n, sums[0], sums[1], nontemporal);
    });
  });
  return backward_result.of({&dx, &dweight, &dbias});
}

const Functions functions{named<forward<false>>("layer_norm"), named<forward<true>>("layer_norm_forward"),
                          named<backward>("layer_norm_backward")};

}  // namespace
}  // namespace pyreg
