#include "dispatch.h"
#include "neutral_rows.h"
#include "ops/ops.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

// x, y: rows of n; weight, bias (n); mean, rstd: one per row, or none of them where not wanted.
void layer_norm_forward(const py::array& x_array, int64_t n, const OptionalArray& weight_array,
                        const OptionalArray& bias_array, double eps, py::array y_array, OptionalArray mean_array,
                        OptionalArray rstd_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    const int64_t rows = n > 0 ? size / n : mean_array ? mean_array->size() : 0;
    require(rows * n == size && n >= 0, "_core: x is not rows of n");
    const T* x = in<T>(x_array, size);
    const T* weight = in<T>(weight_array, n);
    const T* bias = in<T>(bias_array, n);
    T* y = out<T>(y_array, size);
    double* mean = out<double>(mean_array, rows);
    T* rstd = out<T>(rstd_array, rows);

    const ReleasedGil released;
    const RowsOrNeutral<T> weights(weight, n, kMultipliesByOne), biases(bias, n, kAddsNothing);
    const auto kernel = kernels<T>().layer_norm_forward;
    const int64_t bytes = 2 * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && y != x;
    parallel_blocks(rows, forward_block_rows<T>(n, nontemporal), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, n, x + begin * n, weights.from(0), biases.from(0), eps, y + begin * n,
             mean ? mean + begin : nullptr, rstd ? rstd + begin : nullptr, nontemporal);
    });
  });
}

// dy, x, dx: rows of n; mean, rstd: one per row; weight, dweight, dbias (n), or none of them.
void layer_norm_backward(const py::array& dy_array, const py::array& x_array, const py::array& mean_array,
                         const py::array& rstd_array, const OptionalArray& weight_array, int64_t n,
                         py::array dx_array, OptionalArray dweight_array, OptionalArray dbias_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size(), rows = mean_array.size();
    require(rows * n == size && n >= 0, "_core: x is not rows of n");
    const T* dy = in<T>(dy_array, size);
    const T* x = in<T>(x_array, size);
    const double* mean = in<double>(mean_array, rows);
    const T* rstd = in<T>(rstd_array, rows);
    const T* weight = in<T>(weight_array, n);
    T* dx = out<T>(dx_array, size);
    T* dweight = out<T>(dweight_array, n);
    T* dbias = out<T>(dbias_array, n);
    require(!weight || (dweight && dbias), "_core: dweight and dbias go with weight");

    const ReleasedGil released;
    const int64_t blocks = blocks_of(rows, kBackwardBlockRows);
    const BlockSums<T> dweights(weight ? blocks : 0, n, dx), dbiases(weight ? blocks : 0, n, dx);
    const auto kernel = kernels<T>().layer_norm_backward;
    const int64_t bytes = 3 * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && dx != x && dx != dy;
    parallel_blocks(rows, kBackwardBlockRows, bytes, [&](int64_t begin, int64_t end) {
      const int64_t block = begin / kBackwardBlockRows;
      kernel(end - begin, n, dy + begin * n, x + begin * n, mean + begin, rstd + begin, weight, dx + begin * n,
             weight ? dweights[block] : nullptr, weight ? dbiases[block] : nullptr, nontemporal);
    });
    if (weight) {
      dweights.sum(blocks, dweight);
      dbiases.sum(blocks, dbias);
    }
  });
}

}  // namespace

void bind_layer_norm(py::module_& m) {
  m.def("layer_norm_forward", layer_norm_forward, py::arg("x"), py::arg("n"), py::arg("weight"), py::arg("bias"),
        py::arg("eps"), py::arg("y"), py::arg("mean"), py::arg("rstd"));
  m.def("layer_norm_backward", layer_norm_backward, py::arg("dy"), py::arg("x"), py::arg("mean"), py::arg("rstd"),
        py::arg("weight"), py::arg("n"), py::arg("dx"), py::arg("dweight"), py::arg("dbias"));
}

}  // namespace pyreg
