#include <cstdint>

#include "dispatch.h"
#include "functions.h"
#include "parameter_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple layer_forward("DropoutAddLayerNormForward"), layer_backward("DropoutAddLayerNormBackward"),
    rms_forward("DropoutAddRmsNormForward"), rms_backward("DropoutAddRmsNormBackward");

// The scales of a branch. If only row_scale is given, layer_scale is all ones: a kernel has two cases, scaled or not.
// Those for 16-bit elements have one, scaled.
template <typename S>
class BranchScales {
 public:
  BranchScales(const Array& row_scale, const Array& layer_scale, const Rows& rows)
      : given_(kHalf<S> || row_scale || layer_scale),
        row_scale_(row_scale),
        layer_scale_(layer_scale, given_ ? rows.read() : 0, kMultipliesByOne) {}

  // The dropout of the rows from `begin` on.
  BranchDropout<Compute<S>> of_block(const DropoutArguments& dropout, int64_t begin, int64_t n) const {
    return {dropout.threshold, dropout.key, dropout.offset + begin * n, given_ ? layer_scale_.get() : nullptr,
            row_scale_.from(begin)};
  }

 private:
  bool given_;
  RowParameter<S> row_scale_;
  ParameterRow<S> layer_scale_;
};

// The rows of the residual, of z, or of their gradients: of S, or of float32 if they are wide.
template <typename S>
class EitherRows {
 public:
  // A neutral row in place of all, if none are given.
  EitherRows(const Array& given, bool wide, const Rows& rows)
      : neutral_(given || wide ? 0 : rows.read(), kAddsNothing),
        wide_neutral_(given || !wide ? 0 : rows.read(), kAddsNothing),
        rows_{given ? given.data : const_cast<void*>(neutral_row(wide))},
        step_(given ? rows.n : 0),
        bytes_(wide ? sizeof(float32) : sizeof(S)) {}

  const void* from(int64_t row) const { return rows_.from<char>(row * step_ * bytes_); }
  int64_t step() const { return step_; }

 private:
  const void* neutral_row(bool wide) const {
    if (wide) return wide_neutral_.get();
    return neutral_.get();
  }

  NeutralRow<S> neutral_;
  NeutralRow<float32> wide_neutral_;
  Elements rows_;
  int64_t step_, bytes_;
};

// x, residual, y, z: rows of n; weight, bias, layer_scale (n); row_scale, mean, rstd: one per row. Only x is
// required. kCentred: LayerNorm; otherwise RMSNorm, which has no bias and no mean.
template <bool kCentred>
Reference forward(Arguments& a) {
  const Array x = a.array(), residual = a.optional_parameter(), weight = a.optional_parameter(),
              bias = kCentred ? a.optional_parameter() : Array{};
  a.require_shape(residual, x);
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  const Rows rows = a.normalized_rows(x, {weight, bias});
  const double eps = a.number();
  const Array row_scale = a.optional_parameter(), layer_scale = a.optional_parameter();
  a.require_shape(row_scale, x.axes - rows.axes, x.shape);
  a.require_shape(layer_scale, rows.axes, x.shape + (x.axes - rows.axes));
  const bool return_z = a.flag();
  const Array out = a.out({x, residual}, {weight, bias, row_scale, layer_scale});
  // Without a residual, z_out may be wide.
  const Array z_out = a.out({x, residual}, {weight, bias, row_scale, layer_scale, out},
                            residual ? residual.type : x.type, residual ? residual.type : compute_type(x.type));
  a.require(return_z || !z_out);
  if (!a.good()) return {};

  const Type type_of_z = residual ? residual.type : z_out ? z_out.type : x.type;
  Result y = result(out, x), z = result_if(return_z, z_out, x, type_of_z), mean,
         rstd = statistic(compute_type(x.type), x, rows);
  if constexpr (kCentred) mean = statistic(Type::float64, x, rows);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    const int64_t n = rows.n;
    const ParameterRow<S> weights(weight, rows.read(), kMultipliesByOne), biases(bias, rows.read(), kAddsNothing);
    const BranchScales<S> scales(row_scale, layer_scale, rows);
    const auto kernel =
        kCentred ? kernels<S>().dropout_add_layer_norm_forward : kernels<S>().dropout_add_rms_norm_forward;
    const bool wide = is_half(x.type) && type_of_z == Type::float32;
    const int64_t bytes = (2 + (wide ? 2 : 1) * (bool{residual} + return_z)) * x.bytes;
    const bool nontemporal = outgrows_cache(bytes) && !y.replaces({x, residual}) && !z.replaces({x, residual});
    const EitherRows<S> residuals(residual, wide, rows);
    const int64_t z_bytes = n * static_cast<int64_t>(wide ? sizeof(float32) : sizeof(S));
    parallel_blocks_with_scratch<T>(rows.count, forward_block_rows<S>(n, nontemporal), bytes,
                                    2 * whole_groups<T>(n) + norm_scratch<S>(n),
                                    [&](int64_t begin, int64_t end, T* scratch) {
                                      kernel({.rows = end - begin,
                                              .n = n,
                                              .dropout = scales.of_block(dropout, begin, n),
                                              .x = x.as<S>() + begin * n,
                                              .residual = residuals.from(begin),
                                              .wide = wide,
                                              .residual_step = residuals.step(),
                                              .weight = weights.get(),
                                              .bias = biases.get(),
                                              .eps = eps,
                                              .y = y.as<S>() + begin * n,
                                              .z = z.from<char>(begin * z_bytes),
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
  const Array dy = a.array(), dz = a.optional_parameter(), z = a.parameter(),
              mean = kCentred ? a.array(Type::float64) : Array{}, rstd = a.statistic(),
              weight = a.optional_parameter();
  a.require(!dz || dz.type == z.type);
  const DropoutArguments dropout = a.dropout(z.size);
  const Array row_scale = a.optional_parameter(), layer_scale = a.optional_parameter();
  const Array x = layer_scale ? a.array() : a.ignored();  // needed only for dlayer_scale
  const Rows rows = a.rows_of(z, rstd, {weight, layer_scale});
  for (const Array& array : {dy, dz, x}) a.require_shape(array, z);
  for (const Array& array : {mean, row_scale}) a.require_shape(array, rstd);
  const bool return_dresidual = a.flag();
  const Array out = a.out({dy, z, dz, x}, {mean, rstd, weight, row_scale, layer_scale});
  const Array dresidual_out = a.out({z, dy, dz, x}, {mean, rstd, weight, row_scale, layer_scale, out});
  a.require(return_dresidual || !dresidual_out);
  if (!a.good()) return {};

  Result dx = result(out, dy), dresidual = result_if(return_dresidual, dresidual_out, z),
         dweight = gradient_of(weight), dbias = kCentred ? gradient_of(weight) : Result{},
         dlayer_scale = gradient_of(layer_scale);
  with_dtype(dy, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ReleasedGil released;
    const int64_t n = rows.n;
    const ParameterRow<S> weights(weight, rows.read(), kMultipliesByOne);
    const BranchScales<S> scales(row_scale, layer_scale, rows);
    const auto kernel =
        kCentred ? kernels<S>().dropout_add_layer_norm_backward : kernels<S>().dropout_add_rms_norm_backward;
    const bool wide = z.is_wide(dy.type);
    const int64_t bytes = (2 + bool{x}) * dy.bytes + (1 + bool{dz} + return_dresidual) * z.bytes;
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({dy, dz, z, x}) &&
                             !dresidual.replaces({dy, dz, z, x}) &&
                             (kLessCode<S> || !return_dresidual ||
                              place_in_line(dx.as<const T>()) == place_in_line(dresidual.as<const T>()));
    // The kernel always sums for weight and bias; in scratch if no gradient is wanted.
    const ParameterGradient<S> dweights(dweight, weight, n), dbiases(dbias, weight, n),
        dlayer_scales(dlayer_scale, layer_scale, n);
    const EitherRows<S> dzs(dz, wide, rows);
    const int64_t z_bytes = n * static_cast<int64_t>(wide ? sizeof(float32) : sizeof(S));
    sum_over_rows<S>(rows.count, n, bytes, dx, {&dweights, &dbiases, &dlayer_scales}, norm_scratch<S>(n),
                     [&](int64_t begin, int64_t end, auto& sums, T* scratch) {
                       kernel({.rows = end - begin,
                               .n = n,
                               .dropout = scales.of_block(dropout, begin, n),
                               .dy = dy.as<S>() + begin * n,
                               .dz = dzs.from(begin),
                               .z = z.from<char>(begin * z_bytes),
                               .wide = wide,
                               .dz_step = dzs.step(),
                               .mean = mean.from<double>(begin),
                               .rstd = rstd.as<T>() + begin,
                               .weight = weights.get(),
                               .x = x.from<S>(begin * n),
                               .dx = dx.as<S>() + begin * n,
                               .dresidual = dresidual.from<char>(begin * z_bytes),
                               .dweight = sums[0],
                               .dbias = sums[1],
                               .dlayer_scale = layer_scale ? sums[2] : ColumnSum<T>{},
                               .scratch = scratch,
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
