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

//   g = grad_scale * grad (+ decay * param, if coupled)
//   m = lerp(m, g, beta1)
//   v = beta2 * v + (1 - beta2) * g * g
//   param -= step_size * m / (sqrt(v) + eps_hat) (+ decay * param, if decoupled)
//
// The loops for a known precision also assume beta1 >= 0.5 and eps > 0; and one kind of decay, but not if kRandom.
template <typename T, Precision kPrecision, Decay kDecay, bool kRandom>
PYREG_NOINLINE void adam_elements(int64_t n, const UpdateArrays& arrays, const RandomNumbers* numbers,
                                  const AdamScalars<T>& scalars) {
  using V = typename Native<T>::vec;
  constexpr bool kKnown = kPrecision != Precision::other;
  const UpdateArrays a = with_known_types<T, kPrecision>(arrays);  // copies, which no store can change
  const RandomNumbers random = kRandom && numbers ? *numbers : RandomNumbers{};
  const AdamScalars<T> s = scalars;
  const Decay decay = kKnown && !kRandom ? kDecay : s.decay_kind;
  const bool m_near_from = kKnown || s.beta1 >= T{0.5}, denominator_may_be_0 = !kKnown && s.eps_hat == 0;
  const bool amsgrad = a[kMaxExpAvgSq].data != nullptr;
#pragma GCC unroll 1
  for (int64_t at = 0; at < n; at += TwoVectors<T>::kCount) {
    auto param = load_two<kPrecision, T>(a[kParam], at), grad = load_two<kPrecision, T>(a[kGrad], at);
    auto exp_avg = load_two<kPrecision, T>(a[kExpAvg], at), exp_avg_sq = load_two<kPrecision, T>(a[kExpAvgSq], at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) {
      V g = s.common.grad_scale * grad.v[k];
      if (decay == Decay::coupled) g = g + s.decay * param.v[k];
      exp_avg.v[k] = lerp(exp_avg.v[k], g, m_near_from, s.beta1, s.one_minus_beta1);
      exp_avg_sq.v[k] = s.beta2 * exp_avg_sq.v[k] + s.one_minus_beta2 * g * g;
    }
    store_two<kPrecision, kRandom>(a[kExpAvg], random.of[kExpAvg], at, exp_avg);
    store_two<kPrecision, kRandom>(a[kExpAvgSq], random.of[kExpAvgSq], at, exp_avg_sq);
    if (amsgrad) {  // the larger of the old one and of what is stored; a NaN wins
      const auto old = load_two<kPrecision, T>(a[kMaxExpAvgSq], at);
      if constexpr (kMixed<T, kPrecision>) exp_avg_sq = load_two<kPrecision, T>(a[kExpAvgSq], at);
      PYREG_UNROLL
      for (int k = 0; k < 2; ++k) {
        const auto keep = (old.v[k] >= exp_avg_sq.v[k]) | (old.v[k] != old.v[k]);
        exp_avg_sq.v[k] = keep ? old.v[k] : exp_avg_sq.v[k];
      }
      store_two<kPrecision, kRandom>(a[kMaxExpAvgSq], random.of[kMaxExpAvgSq], at, exp_avg_sq);
    }
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k) {
      const V denominator = square_root(exp_avg_sq.v[k]) + s.eps_hat;
      V update = s.step_size * exp_avg.v[k] / denominator;
      if (denominator_may_be_0) update = denominator == 0 ? V{} : update;
      if (decay == Decay::decoupled) update = update + s.decay * param.v[k];
      param.v[k] = param.v[k] - update;
    }
    store_param<kPrecision, kRandom>(a, random, at, param, s.common);
  }
}

template <typename T, Precision kPrecision>
auto* adam_loop(Decay decay) {
  return decay == Decay::none      ? adam_elements<T, kPrecision, Decay::none, false>
         : decay == Decay::coupled ? adam_elements<T, kPrecision, Decay::coupled, false>
                                   : adam_elements<T, kPrecision, Decay::decoupled, false>;
}

template <typename T>
void adam(int64_t n, const UpdateArrays& arrays, const RandomNumbers* random, Precision precision,
          const AdamScalars<T>& scalars) {
  auto* loop = adam_elements<T, Precision::other, Decay::none, kMayMix<T>>;
  if (scalars.beta1 >= T{0.5} && scalars.eps_hat != 0) {
    if (precision == Precision::same) loop = adam_loop<T, Precision::same>(scalars.decay_kind);
    if constexpr (kMayMix<T>) {
      if (precision == Precision::bfloat16)
        loop = random ? adam_elements<T, Precision::bfloat16, Decay::none, true>
                      : adam_loop<T, Precision::bfloat16>(scalars.decay_kind);
      if (precision == Precision::master && !random) loop = adam_loop<T, Precision::master>(scalars.decay_kind);
    }
  }
  loop(n, arrays, random, scalars);
}

}  // namespace
}  // namespace pyreg
