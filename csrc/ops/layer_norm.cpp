#include "dispatch.h"
#include "functions.h"
#include "parameter_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple forward_result("LayerNormForward"), backward_result("LayerNormBackward");

// x, y: rows of n; weight, bias (n); mean, rstd: one per row.
template <bool kStatistics>
Reference forward(Arguments& a) {
  const Array x = a.array(), weight = a.optional_parameter(), bias = a.optional_parameter();
  const Rows rows = a.normalized_rows(x, {weight, bias});
  const double eps = a.number();
  const Array out = a.out({x}, {weight, bias});
  if (!a.good()) return {};

  Result y = result(out, x), mean, rstd;
  if constexpr (kStatistics)
    mean = statistic(Type::float64, x, rows), rstd = statistic(compute_type(x.type), x, rows);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    if (!kStatistics && x.size == 0) return;
    const int64_t n = rows.n;
    const ParameterRow<S> weights(weight, rows.read(), kMultipliesByOne), biases(bias, rows.read(), kAddsNothing);
    const auto kernel = kernels<S>().layer_norm_forward;
    const bool nontemporal = outgrows_cache(2 * x.bytes) && !y.replaces({x});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<S>(n, nontemporal), 2 * x.bytes,
                                    norm_scratch<S>(n), [&](int64_t begin, int64_t end, T* scratch) {
                                      kernel(end - begin, n, x.as<S>() + begin * n, weights.get(), biases.get(), eps,
                                             y.as<S>() + begin * n, mean.from<double>(begin), rstd.from<T>(begin),
                                             scratch, nontemporal);
                                    });
  });
  return kStatistics ? forward_result.of({&y, &mean, &rstd}) : std::move(y.reference);
}

// dy, x, dx: rows of n; mean, rstd: one per row; weight, dweight, dbias: all (n), or all missing.
Reference backward(Arguments& a) {
  const Array dy = a.array(), x = a.array(), mean = a.array(Type::float64), rstd = a.statistic(),
              weight = a.optional_parameter();
  const Rows rows = a.rows_of(x, mean, {weight});
  a.require_shape(dy, x);
  a.require_shape(rstd, mean);
  const Array out = a.out({x, dy}, {mean, rstd, weight});
  if (!a.good()) return {};

  Result dx = result(out, x), dweight = gradient_of(weight), dbias = gradient_of(weight);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    const int64_t n = rows.n, bytes = 3 * x.bytes;
    const auto kernel = kernels<S>().layer_norm_backward;
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({x, dy});
    const bool weighs = kLessCode<S> || weight;
    const ParameterRow<S> weights(weight, weighs ? rows.read() : 0, kMultipliesByOne);
    const ParameterGradient<S> dweights(dweight, weight, n), dbiases(dbias, weight, n);
    sum_over_rows<S>(rows.count, weighs ? n : 0, bytes, dx, {&dweights, &dbiases}, norm_scratch<S>(n),
                     [&](int64_t begin, int64_t end, auto& sums, T* scratch) {
                       kernel(end - begin, n, dy.as<S>() + begin * n, x.as<S>() + begin * n,
                              mean.as<double>() + begin, rstd.as<T>() + begin, weighs ? weights.get() : nullptr,
                              dx.as<S>() + begin * n, sums[0], sums[1], scratch, nontemporal);
                     });
  });
  return backward_result.of({&dx, &dweight, &dbias});
}

const Functions functions{named<forward<false>>("layer_norm"), named<forward<true>>("layer_norm_forward"),
                          named<backward>("layer_norm_backward")};

}  // namespace
}  // namespace pyreg
