#include "cache.h"
#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

void copy(const py::array& source_array, py::array target_array, bool nontemporal) {
  with_dtype(source_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = source_array.size();
    const T* source = in<T>(source_array, size);
    T* target = out<T>(target_array, size);

    const ReleasedGil released;
    const auto kernel = kernels<T>().copy;
    parallel_blocks(size, block_elements<T>(nontemporal), 2 * size * sizeof(T), [=](int64_t begin, int64_t end) {
      kernel(end - begin, source + begin, target + begin, nontemporal);
    });
  });
}

void update_loop(py::array param_array, const py::array& grad_array, py::array exp_avg_array,
                 py::array exp_avg_sq_array) {
  with_dtype(param_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = param_array.size();
    T* param = out<T>(param_array, size);
    const T* grad = in<T>(grad_array, size);
    T* exp_avg = out<T>(exp_avg_array, size);
    T* exp_avg_sq = out<T>(exp_avg_sq_array, size);

    const ReleasedGil released;
    const auto kernel = kernels<T>().update_loop;
    const int64_t bytes = 7 * size * sizeof(T);
    parallel_blocks(size, update_block(bytes), bytes, [=](int64_t begin, int64_t end) {
      kernel(end - begin, param + begin, grad + begin, exp_avg + begin, exp_avg_sq + begin);
    });
  });
}

}  // namespace

void bind_copy(py::module_& m) {
  m.def("copy", copy, py::arg("source"), py::arg("target"), py::arg("streaming"));
  m.def("update_loop", update_loop, py::arg("param"), py::arg("grad"), py::arg("exp_avg"), py::arg("exp_avg_sq"));
}

}  // namespace pyreg
