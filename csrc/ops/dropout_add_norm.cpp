#include <cstdint>

#include "dispatch.h"
#include "functions.h"
#include "neutral_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple layer_forward("DropoutAddLayerNormForward"), layer_backward("DropoutAddLayerNormBackward"),
    rms_forward("DropoutAddRmsNormForward"), rms_backward("DropoutAddRmsNormBackward");

// The scales of a branch. If only row_scale is given, layer_scale is all ones: a kernel has two cases, scaled or not.
template <typename T>
class BranchScales {
 public:
  BranchScales(const T* row_scale, const T* layer_scale, const Rows& rows)
      : given_(row_scale || layer_scale),
        row_scale_(row_scale),
        layer_scale_(layer_scale, given_ ? rows : Rows{}, kMultipliesByOne) {}

  // The dropout of the rows from `begin` on.
  BranchDropout<T> of_block(const DropoutArguments& dropout, int64_t begin, int64_t n) const {
    return {dropout.threshold, dropout.key, dropout.offset + begin * n, given_ ? layer_scale_.from(0) : nullptr,
            row_scale_ ? row_scale_ + begin : nullptr};
  }

 private:
  bool given_;
  const T* row_scale_;
  RowsOrNeutral<T> layer_scale_;
};

// x, residual, y, z: rows of n; weight, bias, layer_scale (n); row_scale, mean, rstd: one per row. Only x is
// required. kCentred: LayerNorm; otherwise RMSNorm, which has no bias and no mean.
template <bool kCentred>
Reference forward(Arguments& a) {
  const Array x = a.array(), residual = a.optional_array(), weight = a.optional_array(),
              bias = kCentred ? a.optional_array() : Array{};
  a.require_shape(residual, x);
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  const Rows rows = a.normalized_rows(x, {weight, bias});
  const double eps = a.number();
  const Array row_scale = a.optional_array(), layer_scale = a.optional_array();
  a.require_shape(row_scale, x.axes - rows.axes, x.shape);
  a.require_shape(layer_scale, rows.axes, x.shape + (x.axes - rows.axes));
  const bool return_z = a.flag();
  const Array out = a.out({x, residual}, {weight, bias, row_scale, layer_scale});
  const Array z_out = a.out({x, residual}, {weight, bias, row_scale, layer_scale, out});
  a.require(return_z || !z_out);
  if (!a.good()) return {};

  Result y = result(out, x), z = result_if(return_z, z_out, x), mean, rstd = statistic(x.type, x, rows);
  if constexpr (kCentred) mean = statistic(Type::float64, x, rows);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const int64_t n = rows.n;
    const RowsOrNeutral<T> residuals(residual.as<T>(), rows, kAddsNothing),
        weights(weight.as<T>(), rows, kMultipliesByOne), biases(bias.as<T>(), rows, kAddsNothing);
    const BranchScales<T> scales(row_scale.as<T>(), layer_scale.as<T>(), rows);
    const auto kernel =
        kCentred ? kernels<T>().dropout_add_layer_norm_forward : kernels<T>().dropout_add_rms_norm_forward;
    const int64_t bytes = (2 + bool{residual} + return_z) * x.bytes;
    const bool nontemporal = outgrows_cache(bytes) && !y.replaces({x, residual}) && !z.replaces({x, residual});
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<T>(n, nontemporal), bytes, 2 * whole_lines<T>(n),
                                    [&](int64_t begin, int64_t end, T* scratch) {
                                      kernel({.rows = end - begin,
                                              .n = n,
                                              .dropout = scales.of_block(dropout, begin, n),
                                              .x = x.as<T>() + begin * n,
                                              .residual = residuals.from(begin),
                                              .residual_step = residuals.step(),
                                              .weight = weights.from(0),
                                              .bias = biases.from(0),
                                              .eps = eps,
                                              .y = y.as<T>() + begin * n,
                                              .z = z.from<T>(begin * n),
                                              .mean = mean.from<double>(begin),
                                              .rstd = rstd.as<T>() + begin,
                                              .scratch = scratch,
                                              .nontemporal = nontemporal});
                                    });
  });
  return kCentred ? layer_forward.of({&y, &z, &mean, &rstd}) : rms_forward.of({&y, &z, &rstd});
}

// dy, dz, z, x, dx, dresidual: rows of n; mean, rstd, row_scale: one per row; weight, layer_scale and their gradients
// (n). dy, z, rstd and LayerNorm's mean are required, and x if layer_scale is given.
template <bool kCentred>
Reference backward(Arguments& a) {
  const Array dy = a.array(), dz = a.optional_array(), z = a.array(),
              mean = kCentred ? a.array(Type::float64) : Array{}, rstd = a.array(), weight = a.optional_array();
  const DropoutArguments dropout = a.dropout(z.size);
  const Array row_scale = a.optional_array(), layer_scale = a.optional_array();
  const Array x = layer_scale ? a.array() : a.ignored();  // needed only for dlayer_scale
  const Rows rows = a.rows_of(z, rstd, {weight, layer_scale});
  for (const Array& array : {dy, dz, x}) a.require_shape(array, z);
  for (const Array& array : {mean, row_scale}) a.require_shape(array, rstd);
  const bool return_dresidual = a.flag();
  const Array out = a.out({z, dy, dz, x}, {mean, rstd, weight, row_scale, layer_scale});
  const Array dresidual_out = a.out({z, dy, dz, x}, {mean, rstd, weight, row_scale, layer_scale, out});
  a.require(return_dresidual || !dresidual_out);
  if (!a.good()) return {};

  Result dx = result(out, z), dresidual = result_if(return_dresidual, dresidual_out, z),
         dweight = gradient_of(weight), dbias = kCentred ? gradient_of(weight) : Result{},
         dlayer_scale = gradient_of(layer_scale);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const int64_t n = rows.n;
    const RowsOrNeutral<T> dzs(dz.as<T>(), rows, kAddsNothing), weights(weight.as<T>(), rows, kMultipliesByOne);
    const BranchScales<T> scales(row_scale.as<T>(), layer_scale.as<T>(), rows);
    const auto kernel =
        kCentred ? kernels<T>().dropout_add_layer_norm_backward : kernels<T>().dropout_add_rms_norm_backward;
    const int64_t bytes = (3 + bool{dz} + bool{x} + return_dresidual) * z.bytes;
    const bool nontemporal =
        outgrows_cache(bytes) && !dx.replaces({dy, dz, z, x}) && !dresidual.replaces({dy, dz, z, x}) &&
        (!return_dresidual || place_in_line(dx.as<const T>()) == place_in_line(dresidual.as<const T>()));
    // The kernel always sums for weight and bias; in scratch if no gradient is wanted.
    T* const totals[] = {dweight.as<T>(), dbias.as<T>(), dlayer_scale.as<T>()};
    sum_over_rows<T>(rows.count, n, bytes, dx.as<T>(), totals, [&](int64_t begin, int64_t end, auto& sums) {
      kernel({.rows = end - begin,
              .n = n,
              .dropout = scales.of_block(dropout, begin, n),
              .dy = dy.as<T>() + begin * n,
              .dz = dzs.from(begin),
              .z = z.as<T>() + begin * n,
              .dz_step = dzs.step(),
              .mean = mean.from<double>(begin),
              .rstd = rstd.as<T>() + begin,
              .weight = weights.from(0),
              .x = x.from<T>(begin * n),
              .dx = dx.as<T>() + begin * n,
              .dresidual = dresidual.from<T>(begin * n),
              .dweight = sums[0],
              .dbias = sums[1],
              .dlayer_scale = layer_scale ? sums[2] : ColumnSum<T>{},
              .nontemporal = nontemporal});
    });
  });
  return kCentred ? layer_backward.of({&dx, &dresidual, &dweight, &dbias, &dlayer_scale})
                  : rms_backward.of({&dx, &dresidual, &dweight, &dlayer_scale});
}

const Functions functions{
    named<forward<true>>("dropout_add_layer_norm_forward"), named<backward<true>>("dropout_add_layer_norm_backward"),
    named<forward<false>>("dropout_add_rms_norm_forward"), named<backward<false>>("dropout_add_rms_norm_backward")};

}  // namespace
}  // namespace pyreg
