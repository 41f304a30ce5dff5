// Adam (Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1) with coupled weight decay (L2 in the gradient)
// or decoupled (AdamW: Loshchilov and Hutter, 2019, arXiv:1711.05101, algorithm 2), and AMSGrad
// (Reddi, Kale and Kumar, 2018, arXiv:1904.09237).
//
// The correction of exp_avg_sq, c, is folded into two scalars (Kingma and Ba, end of section 2) to save a division:
// m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + eps_hat) with eps_hat = c * eps.
#pragma once

#include "kernels/update.h"

namespace pyreg {
namespace {

// The loop for usual arrays is also for beta1 >= 0.5, an eps above 0, and one kind of decay.
template <typename T, Usual kUsual, Decay kDecay>
PYREG_NOINLINE void adam_elements(int64_t n, const UpdateArrays& arrays, const AdamScalars<T>& scalars) {
  using V = typename Native<T>::vec;
  constexpr bool kIsUsual = kUsual != Usual::none;
  const UpdateArrays a = known<T, kUsual>(arrays);  // copies, which no store can change
  const AdamScalars<T> s = scalars;
  const Decay decay = kIsUsual ? kDecay : s.decay_kind;
  const bool near_m = kIsUsual || s.beta1 >= T{0.5}, may_be_0 = !kIsUsual && s.eps_hat == 0;
  const bool amsgrad = a[kMaxExpAvgSq].data != nullptr;
#pragma GCC unroll 1
  for (int64_t at = 0; at < n; at += TwoVectors<T>::kCount) {
    auto param = load_two<kUsual, T>(a[kParam], at), grad = load_two<kUsual, T>(a[kGrad], at);
    auto exp_avg = load_two<kUsual, T>(a[kExpAvg], at), exp_avg_sq = load_two<kUsual, T>(a[kExpAvgSq], at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) {
      V g = s.common.grad_scale * grad.v[k];
      if (decay == Decay::coupled) g = g + s.decay * param.v[k];
      exp_avg.v[k] = moved(exp_avg.v[k], g, near_m, s.beta1, s.one_minus_beta1);
      exp_avg_sq.v[k] = s.beta2 * exp_avg_sq.v[k] + s.one_minus_beta2 * g * g;
    }
    store_two<kUsual>(a[kExpAvg], at, exp_avg);
    store_two<kUsual>(a[kExpAvgSq], at, exp_avg_sq);
    if (amsgrad) {  // the larger of the old one and of what is stored; a NaN wins
      const auto old = load_two<kUsual, T>(a[kMaxExpAvgSq], at);
      if constexpr (kMixed<T, kUsual>) exp_avg_sq = load_two<kUsual, T>(a[kExpAvgSq], at);
      PYREG_UNROLL
      for (int k = 0; k < 2; ++k) {
        const auto keep = (old.v[k] >= exp_avg_sq.v[k]) | (old.v[k] != old.v[k]);
        exp_avg_sq.v[k] = keep ? old.v[k] : exp_avg_sq.v[k];
      }
      store_two<kUsual>(a[kMaxExpAvgSq], at, exp_avg_sq);
    }
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) {
      const V denominator = square_root(exp_avg_sq.v[k]) + s.eps_hat;
      V update = s.step_size * exp_avg.v[k] / denominator;
      if (may_be_0) update = denominator == 0 ? V{} : update;
      if (decay == Decay::decoupled) update = update + s.decay * param.v[k];
      param.v[k] = param.v[k] - update;
    }
    store_param<kUsual>(a, at, param, s.common);
  }
}

template <typename T, Usual kUsual>
auto* adam_loop(Decay decay) {
  return decay == Decay::none      ? adam_elements<T, kUsual, Decay::none>
         : decay == Decay::coupled ? adam_elements<T, kUsual, Decay::coupled>
                                   : adam_elements<T, kUsual, Decay::decoupled>;
}

template <typename T>
void adam(int64_t n, const UpdateArrays& arrays, Usual usual, const AdamScalars<T>& scalars) {
  auto* loop = adam_elements<T, Usual::none, Decay::none>;
  if (scalars.beta1 >= T{0.5} && scalars.eps_hat != 0) {
    if (usual == Usual::same) loop = adam_loop<T, Usual::same>(scalars.decay_kind);
    if constexpr (kMayMix<T>) {
      if (usual == Usual::bfloat16) loop = adam_loop<T, Usual::bfloat16>(scalars.decay_kind);
      if (usual == Usual::copied) loop = adam_loop<T, Usual::copied>(scalars.decay_kind);
    }
  }
  loop(n, arrays, scalars);
}

}  // namespace
}  // namespace pyreg
