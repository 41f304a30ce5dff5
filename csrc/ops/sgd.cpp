#include "cache.h"
#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// first_step: the momentum buffer holds nothing yet.
void sgd(py::array param_array, const py::array& grad_array, OptionalArray momentum_buffer_array, bool first_step,
         double lr, double momentum, double dampening, double weight_decay, bool nesterov, bool maximize) {
  with_dtype(param_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = param_array.size();
    T* param = out<T>(param_array, size);
    const T* grad = in<T>(grad_array, size);
    T* momentum_buffer = out<T>(momentum_buffer_array, size);
    require(momentum == 0 || momentum_buffer, "_core: momentum needs momentum_buffer");

    const SgdScalars<T> scalars = {
        .grad_sign = static_cast<T>(maximize ? -1 : 1),
        .lr = static_cast<T>(lr),
        .momentum = static_cast<T>(momentum),
        .one_minus_dampening = static_cast<T>(1 - dampening),
        .decay = static_cast<T>(weight_decay),
        .nesterov = nesterov,
    };
    const Momentum use = momentum == 0 ? Momentum::none : first_step ? Momentum::first : Momentum::next;

    const ReleasedGil released;
    const auto kernel = kernels<T>().sgd;
    const int64_t bytes = (use == Momentum::none ? 3 : 5) * size * sizeof(T);
    parallel_blocks(size, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, scalars, weight_decay != 0, use, param + begin, grad + begin,
             momentum_buffer ? momentum_buffer + begin : nullptr);
    });
  });
}

}  // namespace

void bind_sgd(py::module_& m) {
  m.def("sgd", sgd, py::arg("param"), py::arg("grad"), py::arg("momentum_buffer"), py::arg("first_step"),
        py::arg("lr"), py::arg("momentum"), py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"),
        py::arg("maximize"));
}

}  // namespace pyreg
