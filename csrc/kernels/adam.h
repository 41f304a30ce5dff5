// Adam (Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1) with coupled weight decay (L2 in the gradient)
// or decoupled (AdamW: Loshchilov and Hutter, 2019, arXiv:1711.05101, algorithm 2), and AMSGrad
// (Reddi, Kale and Kumar, 2018, arXiv:1904.09237).
//
// The correction of exp_avg_sq, c, is folded into two scalars (Kingma and Ba, end of section 2) to save a division:
// m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + eps_hat) with eps_hat = c * eps.
#pragma once

#include "kernels/lanes.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

template <typename T, Decay kDecay, bool kAmsgrad>
void adam_elements(int64_t n, const AdamScalars<T>& s, T* __restrict param, const T* __restrict grad,
                   T* __restrict exp_avg, T* __restrict exp_avg_sq, T* __restrict max_exp_avg_sq) {
  const auto [grad_sign, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, eps_hat, decay] = s;
  for (int64_t i = 0; i < n; ++i) {
    const T p = param[i];
    T g = grad_sign * grad[i];
    if constexpr (kDecay == Decay::coupled) g = g + decay * p;
    // The form of lerp that starts at the nearer end: if beta1 = 0, m is exactly g.
    const T m = beta1 >= T{0.5} ? exp_avg[i] + one_minus_beta1 * (g - exp_avg[i]) : g - beta1 * (g - exp_avg[i]);
    T v = beta2 * exp_avg_sq[i] + one_minus_beta2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    if constexpr (kAmsgrad) {
      const T old = max_exp_avg_sq[i];
      v = old >= v || old != old ? old : v;  // the larger; a NaN wins
      max_exp_avg_sq[i] = v;
    }
    T update = step_size * m / (square_root(v) + eps_hat);
    if constexpr (kDecay == Decay::decoupled) update = update + decay * p;
    param[i] = p - update;
  }
}

// All arrays are (n) and disjoint. max_exp_avg_sq is null unless AMSGrad is used.
template <typename T>
void adam(int64_t n, const AdamScalars<T>& scalars, Decay decay, T* param, const T* grad, T* exp_avg, T* exp_avg_sq,
          T* max_exp_avg_sq) {
  const auto run = [&](auto kernel) PYREG_LAMBDA {
    kernel(n, scalars, param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq);
  };
  if (max_exp_avg_sq != nullptr) {
    if (decay == Decay::none) return run(adam_elements<T, Decay::none, true>);
    if (decay == Decay::coupled) return run(adam_elements<T, Decay::coupled, true>);
    return run(adam_elements<T, Decay::decoupled, true>);
  }
  if (decay == Decay::none) return run(adam_elements<T, Decay::none, false>);
  if (decay == Decay::coupled) return run(adam_elements<T, Decay::coupled, false>);
  return run(adam_elements<T, Decay::decoupled, false>);
}

}  // namespace
}  // namespace pyreg
