// Stochastic gradient descent with momentum as PyTorch defines it (torch.optim.SGD; Nesterov's form:
// Sutskever et al., ICML 2013), with coupled weight decay.
#pragma once

#include "kernels/update.h"

namespace pyreg {
namespace {

//   g = grad_scale * grad (+ decay * param)
//   b = momentum * b + (1 - dampening) * g, or g at the first step
//   param -= lr * (b, or g + momentum * b with Nesterov's form, or g without momentum)
template <typename T, Precision kPrecision, bool kRandom>
PYREG_NOINLINE void sgd_elements(int64_t n, const UpdateArrays& arrays, const RandomNumbers* numbers,
                                 const SgdScalars<T>& scalars) {
  const UpdateArrays a = with_known_types<T, kPrecision>(arrays);  // copies, which no store can change
  const RandomNumbers random = kRandom && numbers ? *numbers : RandomNumbers{};
  const SgdScalars<T> s = scalars;
#pragma GCC unroll 1
  for (int64_t at = 0; at < n; at += TwoVectors<T>::kCount) {
    auto param = load_two<kPrecision, T>(a[kParam], at), grad = load_two<kPrecision, T>(a[kGrad], at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) {
      grad.v[k] = s.common.grad_scale * grad.v[k];
      if (s.decay_kind == Decay::coupled) grad.v[k] = grad.v[k] + s.decay * param.v[k];
    }
    if (s.momentum_kind != Momentum::none) {
      auto buffer = grad;
      if (s.momentum_kind == Momentum::next) {
        buffer = load_two<kPrecision, T>(a[kMomentumBuffer], at);
        PYREG_UNROLL
        for (int k = 0; k < 2; ++k) buffer.v[k] = s.momentum * buffer.v[k] + s.one_minus_dampening * grad.v[k];
      }
      store_two<kPrecision, kRandom>(a[kMomentumBuffer], random.of[kMomentumBuffer], at, buffer);
      PYREG_UNROLL
      for (int k = 0; k < 2; ++k) grad.v[k] = s.nesterov ? grad.v[k] + s.momentum * buffer.v[k] : buffer.v[k];
    }
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) param.v[k] = param.v[k] - s.lr * grad.v[k];
    store_param<kPrecision, kRandom>(a, random, at, param, s.common);
  }
}

template <typename T>
void sgd(int64_t n, const UpdateArrays& arrays, const RandomNumbers* random, Precision precision,
         const SgdScalars<T>& scalars) {
  auto* const loop = precision == Precision::same ? sgd_elements<T, Precision::same, false>
                                                  : sgd_elements<T, Precision::other, kMayMix<T>>;
  loop(n, arrays, random, scalars);
}

}  // namespace
}  // namespace pyreg
