#include <cstdint>

#include "dispatch.h"
#include "neutral_rows.h"
#include "ops/ops.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

template <typename T>
T* advanced(T* pointer, int64_t elements) {
  return pointer ? pointer + elements : nullptr;
}

// The scales of a branch: both where one is given, so that a kernel has only one case besides the common one.
template <typename T>
class BranchScales {
 public:
  BranchScales(const T* row_scale, const T* layer_scale, int64_t n)
      : given_(row_scale || layer_scale),
        row_scale_(row_scale),
        layer_scale_(layer_scale, given_ ? n : 0, kMultipliesByOne) {}

  const T* of_layer() const { return given_ ? layer_scale_.from(0) : nullptr; }
  const T* of_rows(int64_t begin) const { return advanced(row_scale_, begin); }

 private:
  bool given_;
  const T* row_scale_;
  RowsOrNeutral<T> layer_scale_;
};

// x, residual, y, z: rows of n; weight, bias, layer_scale (n); row_scale, mean, rstd: one per row. Of the inputs, x
// alone has to be given; z is none where it is not wanted. mean: LayerNorm, else RMSNorm, which has no bias either.
void dropout_add_norm_forward(const py::array& x_array, const OptionalArray& residual_array,
                              const OptionalArray& weight_array, const OptionalArray& bias_array,
                              const OptionalArray& row_scale_array, const OptionalArray& layer_scale_array, int64_t n,
                              uint64_t threshold, uint64_t key, uint64_t offset, double eps, py::array y_array,
                              OptionalArray z_array, OptionalArray mean_array, py::array rstd_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size(), rows = rstd_array.size();
    require(rows * n == size && n >= 0, "_core: x is not rows of n");
    const T* x = in<T>(x_array, size);
    const T* residual = in<T>(residual_array, size);
    const T* row_scale = in<T>(row_scale_array, rows);
    T* y = out<T>(y_array, size);
    T* z = out<T>(z_array, size);
    double* mean = out<double>(mean_array, rows);
    T* rstd = out<T>(rstd_array, rows);
    require(!bias_array || mean, "_core: bias goes with mean");
    const T *weight = in<T>(weight_array, n), *bias = in<T>(bias_array, n),
            *layer_scale = in<T>(layer_scale_array, n);

    const ReleasedGil released;
    const RowsOrNeutral<T> residuals(residual, n, kAddsNothing), weights(weight, n, kMultipliesByOne),
        biases(bias, n, kAddsNothing);
    const BranchScales<T> scales(row_scale, layer_scale, n);
    const auto kernel =
        mean ? kernels<T>().dropout_add_layer_norm_forward : kernels<T>().dropout_add_rms_norm_forward;
    const int64_t bytes = (2 + (residual != nullptr) + (z != nullptr)) * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && y != x && y != residual && (!z || (z != x && z != residual));
    const int64_t two_rows = 2 * (n + kLineBytes / sizeof(T));
    parallel_blocks_with_scratch<T>(rows, forward_block_rows<T>(n, nontemporal), bytes, two_rows,
                                    [&](int64_t begin, int64_t end, T* scratch) {
                                      const BranchDropout<T> dropout{threshold, key, offset + begin * n,
                                                                     scales.of_layer(), scales.of_rows(begin)};
                                      kernel({.rows = end - begin,
                                              .n = n,
                                              .dropout = dropout,
                                              .x = x + begin * n,
                                              .residual = residuals.from(begin),
                                              .residual_step = residuals.step(),
                                              .weight = weights.from(0),
                                              .bias = biases.from(0),
                                              .eps = eps,
                                              .y = y + begin * n,
                                              .z = advanced(z, begin * n),
                                              .mean = advanced(mean, begin),
                                              .rstd = rstd + begin,
                                              .scratch = scratch,
                                              .nontemporal = nontemporal});
                                    });
  });
}

// dy, dz, z, x, dx, dresidual: rows of n; mean, rstd, row_scale: one per row; weight, layer_scale and their gradients
// (n). Of the inputs, dy, z and rstd have to be given; x and dlayer_scale go with layer_scale; dresidual is none
// where it is not wanted. mean: LayerNorm, else RMSNorm, which has no dbias either.
void dropout_add_norm_backward(const py::array& dy_array, const OptionalArray& dz_array, const py::array& z_array,
                               const OptionalArray& mean_array, const py::array& rstd_array,
                               const OptionalArray& weight_array, const OptionalArray& row_scale_array,
                               const OptionalArray& layer_scale_array, const OptionalArray& x_array, int64_t n,
                               uint64_t threshold, uint64_t key, uint64_t offset, py::array dx_array,
                               OptionalArray dresidual_array, OptionalArray dweight_array, OptionalArray dbias_array,
                               OptionalArray dlayer_scale_array) {
  with_dtype(dy_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = dy_array.size(), rows = rstd_array.size();
    require(rows * n == size && n >= 0, "_core: dy is not rows of n");
    const T *dy = in<T>(dy_array, size), *dz = in<T>(dz_array, size), *z = in<T>(z_array, size),
            *x = in<T>(x_array, size), *rstd = in<T>(rstd_array, rows), *row_scale = in<T>(row_scale_array, rows),
            *weight = in<T>(weight_array, n), *layer_scale = in<T>(layer_scale_array, n);
    const double* mean = in<double>(mean_array, rows);
    T *dx = out<T>(dx_array, size), *dresidual = out<T>(dresidual_array, size), *dweight = out<T>(dweight_array, n),
      *dbias = out<T>(dbias_array, n), *dlayer_scale = out<T>(dlayer_scale_array, n);
    require(!dweight == !weight && !dbias == !(weight && mean), "_core: dweight and dbias go with weight");
    require(!dlayer_scale == !layer_scale && !x == !layer_scale, "_core: x and dlayer_scale go with layer_scale");

    const ReleasedGil released;
    const RowsOrNeutral<T> dzs(dz, n, kAddsNothing), weights(weight, n, kMultipliesByOne);
    const BranchScales<T> scales(row_scale, layer_scale, n);
    const int64_t blocks = blocks_of(rows, kBackwardBlockRows);
    const BlockSums<T> dweights(blocks, n, dx), dbiases(mean ? blocks : 0, n, dx),
        dlayer_scales(dlayer_scale ? blocks : 0, n, dx);
    const auto kernel =
        mean ? kernels<T>().dropout_add_layer_norm_backward : kernels<T>().dropout_add_rms_norm_backward;
    const int64_t bytes = (3 + (dz != nullptr) + (x != nullptr) + (dresidual != nullptr)) * size * sizeof(T);
    const auto is_input = [&](const T* p) {
      return p && (p == dy || p == dz || p == z || p == x);
    };
    const bool nontemporal = outgrows_cache(bytes) && !is_input(dx) && !is_input(dresidual) &&
                             (!dresidual || place_in_line(dx) == place_in_line(dresidual));
    parallel_blocks(rows, kBackwardBlockRows, bytes, [&](int64_t begin, int64_t end) {
      const int64_t block = begin / kBackwardBlockRows;
      const BranchDropout<T> dropout{threshold, key, offset + begin * n, scales.of_layer(), scales.of_rows(begin)};
      kernel({.rows = end - begin,
              .n = n,
              .dropout = dropout,
              .dy = dy + begin * n,
              .dz = dzs.from(begin),
              .z = z + begin * n,
              .dz_step = dzs.step(),
              .mean = advanced(mean, begin),
              .rstd = rstd + begin,
              .weight = weights.from(0),
              .x = advanced(x, begin * n),
              .dx = dx + begin * n,
              .dresidual = advanced(dresidual, begin * n),
              .dweight = dweights[block],
              .dbias = mean ? dbiases[block] : nullptr,
              .dlayer_scale = dlayer_scale ? dlayer_scales[block] : nullptr,
              .nontemporal = nontemporal});
    });
    if (dweight) dweights.sum(blocks, dweight);
    if (dbias) dbiases.sum(blocks, dbias);
    if (dlayer_scale) dlayer_scales.sum(blocks, dlayer_scale);
  });
}

}  // namespace

void bind_dropout_add_norm(py::module_& m) {
  m.def("dropout_add_norm_forward", dropout_add_norm_forward, py::arg("x"), py::arg("residual"), py::arg("weight"),
        py::arg("bias"), py::arg("row_scale"), py::arg("layer_scale"), py::arg("n"), py::arg("threshold"),
        py::arg("key"), py::arg("index"), py::arg("eps"), py::arg("y"), py::arg("z"), py::arg("mean"),
        py::arg("rstd"));
  m.def("dropout_add_norm_backward", dropout_add_norm_backward, py::arg("dy"), py::arg("dz"), py::arg("z"),
        py::arg("mean"), py::arg("rstd"), py::arg("weight"), py::arg("row_scale"), py::arg("layer_scale"),
        py::arg("x"), py::arg("n"), py::arg("threshold"), py::arg("key"), py::arg("index"), py::arg("dx"),
        py::arg("dresidual"), py::arg("dweight"), py::arg("dbias"), py::arg("dlayer_scale"));
}

}  // namespace pyreg
