#include "dispatch.h"
#include "neutral_rows.h"
#include "ops/ops.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

// x, y: rows of n; weight (n); rstd: one per row, or none where not wanted.
void rms_norm_forward(const py::array& x_array, int64_t n, const OptionalArray& weight_array, double eps,
                      py::array y_array, OptionalArray rstd_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    const int64_t rows = n > 0 ? size / n : rstd_array ? rstd_array->size() : 0;
    require(rows * n == size && n >= 0, "_core: x is not rows of n");
    const T* x = in<T>(x_array, size);
    const T* weight = in<T>(weight_array, n);
    T* y = out<T>(y_array, size);
    T* rstd = out<T>(rstd_array, rows);

    const ReleasedGil released;
    const RowsOrNeutral<T> weights(weight, n, kMultipliesByOne);
    const auto kernel = kernels<T>().rms_norm_forward;
    const int64_t bytes = 2 * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && y != x;
    parallel_blocks(rows, forward_block_rows<T>(n, nontemporal), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, n, x + begin * n, weights.from(0), eps, y + begin * n, rstd ? rstd + begin : nullptr,
             nontemporal);
    });
  });
}

// dy, x, dx: rows of n; rstd: one per row; weight, dweight (n), or none of them.
void rms_norm_backward(const py::array& dy_array, const py::array& x_array, const py::array& rstd_array,
                       const OptionalArray& weight_array, int64_t n, py::array dx_array,
                       OptionalArray dweight_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size(), rows = rstd_array.size();
    require(rows * n == size && n >= 0, "_core: x is not rows of n");
    const T* dy = in<T>(dy_array, size);
    const T* x = in<T>(x_array, size);
    const T* rstd = in<T>(rstd_array, rows);
    const T* weight = in<T>(weight_array, n);
    T* dx = out<T>(dx_array, size);
    T* dweight = out<T>(dweight_array, n);
    require(!weight || dweight, "_core: dweight goes with weight");

    const ReleasedGil released;
    const int64_t blocks = blocks_of(rows, kBackwardBlockRows);
    const BlockSums<T> dweights(weight ? blocks : 0, n, dx);
    const auto kernel = kernels<T>().rms_norm_backward;
    const int64_t bytes = 3 * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && dx != x && dx != dy;
    parallel_blocks(rows, kBackwardBlockRows, bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, n, dy + begin * n, x + begin * n, rstd + begin, weight, dx + begin * n,
             weight ? dweights[begin / kBackwardBlockRows] : nullptr, nontemporal);
    });
    if (weight) dweights.sum(blocks, dweight);
  });
}

}  // namespace

void bind_rms_norm(py::module_& m) {
  m.def("rms_norm_forward", rms_norm_forward, py::arg("x"), py::arg("n"), py::arg("weight"), py::arg("eps"),
        py::arg("y"), py::arg("rstd"));
  m.def("rms_norm_backward", rms_norm_backward, py::arg("dy"), py::arg("x"), py::arg("rstd"), py::arg("weight"),
        py::arg("n"), py::arg("dx"), py::arg("dweight"));
}

}  // namespace pyreg
