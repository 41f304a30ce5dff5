#include <cmath>
#include <limits>

#include "cache.h"
#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// base**exponent by repeated squaring: multiplications alone, the same on every machine.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

// decoupled: AdamW's decay; else the decay is a term of the gradient.
void adam(py::array param_array, const py::array& grad_array, py::array exp_avg_array, py::array exp_avg_sq_array,
          OptionalArray max_exp_avg_sq_array, uint64_t step, double lr, double beta1, double beta2, double eps,
          double weight_decay, bool decoupled, bool maximize) {
  with_dtype(param_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = param_array.size();
    T* param = out<T>(param_array, size);
    const T* grad = in<T>(grad_array, size);
    T* exp_avg = out<T>(exp_avg_array, size);
    T* exp_avg_sq = out<T>(exp_avg_sq_array, size);
    T* max_exp_avg_sq = out<T>(max_exp_avg_sq_array, size);

    const double sqrt_bias_correction2 = std::sqrt(1 - power(beta2, step));
    const T eps_hat = static_cast<T>(eps * sqrt_bias_correction2);
    const AdamScalars<T> scalars = {
        .grad_sign = static_cast<T>(maximize ? -1 : 1),
        .beta1 = static_cast<T>(beta1),
        .one_minus_beta1 = static_cast<T>(1 - beta1),
        .beta2 = static_cast<T>(beta2),
        .one_minus_beta2 = static_cast<T>(1 - beta2),
        .step_size = static_cast<T>(lr / (1 - power(beta1, step)) * sqrt_bias_correction2),
        .eps_hat = eps_hat != 0 || eps == 0 ? eps_hat : std::numeric_limits<T>::denorm_min(),
        .decay = static_cast<T>(decoupled ? lr * weight_decay : weight_decay),
    };
    const Decay decay = weight_decay == 0 ? Decay::none : decoupled ? Decay::decoupled : Decay::coupled;

    const ReleasedGil released;
    const auto kernel = kernels<T>().adam;
    const int64_t bytes = (max_exp_avg_sq ? 9 : 7) * size * sizeof(T);
    parallel_blocks(size, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, scalars, decay, param + begin, grad + begin, exp_avg + begin, exp_avg_sq + begin,
             max_exp_avg_sq ? max_exp_avg_sq + begin : nullptr);
    });
  });
}

}  // namespace

void bind_adam(py::module_& m) {
  m.def("adam", adam, py::arg("param"), py::arg("grad"), py::arg("exp_avg"), py::arg("exp_avg_sq"),
        py::arg("max_exp_avg_sq"), py::arg("step"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
        py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"));
}

}  // namespace pyreg
