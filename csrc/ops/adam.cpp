#include <cmath>
#include <limits>

#include "functions.h"
#include "model.h"

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
  Model model;
  for (const Role role : {kParam, kGrad, kExpAvg, kExpAvgSq}) model.take(a, role);
  const int64_t step = a.integer(1);
  const double lr = a.number();
  const auto [beta1, beta2] = a.betas();
  const double eps = a.number(), weight_decay = a.number();
  model.take_optional(a, kMaxExpAvgSq);
  const bool maximize = a.flag(), bias_correction = a.flag();
  const UpdateOptions options = model.take_options(
      a, maximize,
      {{"param", kParam}, {"exp_avg", kExpAvg}, {"exp_avg_sq", kExpAvgSq}, {"ema", kEma}, {"param_out", kParamOut}});
  model.read(a, options);
  a.require(model.has(kExpAvg) && model.has(kExpAvgSq));
  if (!a.good()) return {};

  const double bias_correction1 = bias_correction ? 1 - power(beta1, step) : 1;
  const double sqrt_bias_correction2 = bias_correction ? std::sqrt(1 - power(beta2, step)) : 1;
  const auto scalars = [&, beta1 = beta1, beta2 = beta2](auto zero) {
    using T = decltype(zero);
    // An eps above 0 stays above 0, so that the denominator does.
    const T eps_hat = static_cast<T>(eps * sqrt_bias_correction2);
    return AdamScalars<T>{
        .common = options.scalars<T>(),
        .beta1 = static_cast<T>(beta1),
        .one_minus_beta1 = static_cast<T>(1 - beta1),
        .beta2 = static_cast<T>(beta2),
        .one_minus_beta2 = static_cast<T>(1 - beta2),
        .step_size = static_cast<T>(lr / bias_correction1 * sqrt_bias_correction2),
        .eps_hat = eps_hat != 0 || eps == 0 ? eps_hat : std::numeric_limits<T>::denorm_min(),
        .decay_kind = weight_decay == 0 ? Decay::none
                      : kDecoupled      ? Decay::decoupled
                                        : Decay::coupled,
        .decay = static_cast<T>(kDecoupled ? lr * weight_decay : weight_decay),
    };
  };
  return model.update(options, scalars, [](const auto& kernels) { return kernels.adam; });
}

const Functions functions{named<update<true>>("adamw_update"), named<update<false>>("adam_update")};

}  // namespace
}  // namespace pyreg
