#include <cmath>
#include <limits>

#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "parallel.h"

namespace pyreg {
namespace {

// base**exponent by repeated squaring. It only multiplies, so the result is the same on every machine.
double power(double base, uint64_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

// kDecoupled: AdamW's weight decay; otherwise the decay is added to the gradient.
template <bool kDecoupled>
Reference update(Arguments& a) {
  const Array param = a.updated(), grad = a.array(), exp_avg = a.updated(param), exp_avg_sq = a.updated(param);
  a.require_shape(grad, param);
  const int64_t step = a.integer(1);
  const double lr = a.number();
  const auto [beta1, beta2] = a.betas();
  const double eps = a.number(), weight_decay = a.number();
  const Array max_exp_avg_sq = a.optional_updated(param);
  const bool maximize = a.flag();
  a.require_disjoint({param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq});
  if (!a.good()) return {};

  with_float_or_double(param, [&, beta1 = beta1, beta2 = beta2](auto zero) {
    using T = decltype(zero);
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
        .decay = static_cast<T>(kDecoupled ? lr * weight_decay : weight_decay),
    };
    const Decay decay = weight_decay == 0 ? Decay::none : kDecoupled ? Decay::decoupled : Decay::coupled;

    const ReleasedGil released;
    const auto kernel = kernels<T>().adam;
    const int64_t bytes = (max_exp_avg_sq ? 9 : 7) * param.bytes;
    parallel_blocks(param.size, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, scalars, decay, param.as<T>() + begin, grad.as<T>() + begin, exp_avg.as<T>() + begin,
             exp_avg_sq.as<T>() + begin, max_exp_avg_sq.from<T>(begin));
    });
  });
  return none();
}

const Functions functions{named<update<true>>("adamw_update"), named<update<false>>("adam_update")};

}  // namespace
}  // namespace pyreg
