// What the updates of all optimisers share. Each is a loop over two vectors of every array at a time.
#pragma once

#include "kernels/stored.h"

namespace pyreg {
namespace {

// The arrays, in a form that tells the compiler what it knows of them.
template <typename T, Usual kUsual>
PYREG_INLINE UpdateArrays known(UpdateArrays arrays) {
  if constexpr (kUsual != Usual::none) {
    PYREG_UNROLL
    for (int role = 0; role < kRoles; ++role) {
      arrays.of[role].type = usual_type(kUsual, role, kTypeOf<T>);
      if (arrays.of[role].type == Type::none) arrays.of[role].data = nullptr;
    }
  }
  return arrays;
}

// decay * from + (1 - decay) * to, in the form of lerp that starts at the nearer end: with decay = 0 it is exactly
// `to`. near_from: whether decay >= 0.5.
template <typename V, typename T>
PYREG_INLINE V moved(V from, V to, bool near_from, T decay, T one_minus_decay) {
  const V way = to - from;
  return near_from ? from + one_minus_decay * way : to - decay * way;
}

// Stores the new param, then what follows from it as it is stored.
template <Usual kUsual, typename T>
PYREG_INLINE void store_param(const UpdateArrays& a, int64_t at, TwoVectors<T> param, const UpdateScalars<T>& s) {
  store_two<kUsual>(a[kParam], at, param);
  if (a[kEma].data == nullptr && a[kParamOut].data == nullptr) return;
  if constexpr (kMixed<T, kUsual>) param = load_two<kUsual, T>(a[kParam], at);
  if (a[kEma].data != nullptr) {
    auto ema = load_two<kUsual, T>(a[kEma], at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k)
      ema.v[k] = moved(ema.v[k], param.v[k], s.ema_decay >= T{0.5}, s.ema_decay, s.one_minus_ema_decay);
    store_two<kUsual>(a[kEma], at, ema);
  }
  if (a[kParamOut].data != nullptr) store_two<kUsual>(a[kParamOut], at, param);
}

}  // namespace
}  // namespace pyreg
