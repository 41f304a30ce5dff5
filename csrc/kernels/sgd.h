// Stochastic gradient descent with momentum as PyTorch defines it (torch.optim.SGD; Nesterov's form:
// Sutskever et al., ICML 2013), with coupled weight decay.
#pragma once

#include "kernels/lanes.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

template <typename T, bool kDecay, Momentum kMomentum>
void sgd_elements(int64_t n, const SgdScalars<T>& s, T* __restrict param, const T* __restrict grad,
                  T* __restrict momentum_buffer) {
  const auto [grad_sign, lr, momentum, one_minus_dampening, decay, nesterov] = s;
  for (int64_t i = 0; i < n; ++i) {
    T g = grad_sign * grad[i];
    if constexpr (kDecay) g = g + decay * param[i];
    if constexpr (kMomentum != Momentum::none) {
      const T b = kMomentum == Momentum::first ? g : momentum * momentum_buffer[i] + one_minus_dampening * g;
      momentum_buffer[i] = b;
      g = nesterov ? g + momentum * b : b;
    }
    param[i] = param[i] - lr * g;
  }
}

// All arrays are (n) and disjoint. momentum_buffer may be null if there is no momentum.
template <typename T>
void sgd(int64_t n, const SgdScalars<T>& scalars, bool decay, Momentum momentum, T* param, const T* grad,
         T* momentum_buffer) {
  const auto run = [&](auto kernel) PYREG_LAMBDA {
    kernel(n, scalars, param, grad, momentum_buffer);
  };
  if (momentum == Momentum::none)
    return decay ? run(sgd_elements<T, true, Momentum::none>) : run(sgd_elements<T, false, Momentum::none>);
  if (momentum == Momentum::first)
    return decay ? run(sgd_elements<T, true, Momentum::first>) : run(sgd_elements<T, false, Momentum::first>);
  return decay ? run(sgd_elements<T, true, Momentum::next>) : run(sgd_elements<T, false, Momentum::next>);
}

}  // namespace
}  // namespace pyreg
