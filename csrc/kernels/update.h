// What the updates of all optimisers share. Each is a loop over two vectors of every array at a time.
#pragma once

#include "kernels/stored.h"

namespace pyreg {
namespace {

// The arrays, with the types that kPrecision promises as constants, so that the branches on them vanish.
template <typename T, Precision kPrecision>
PYREG_INLINE UpdateArrays with_known_types(UpdateArrays arrays) {
  if constexpr (kPrecision != Precision::other) {
    PYREG_UNROLL
    for (int role = 0; role < kRoles; ++role) {
      arrays.of[role].type = type_in(kPrecision, role, kTypeOf<T>);
      if (arrays.of[role].type == Type::none) arrays.of[role].data = nullptr;
    }
  }
  return arrays;
}

// Linear interpolation, decay * from + (1 - decay) * to, in the form that starts at the nearer end: with decay = 0 it
// is exactly `to`. near_from: whether decay >= 0.5.
template <typename V, typename T>
PYREG_INLINE V lerp(V from, V to, bool near_from, T decay, T one_minus_decay) {
  if (!near_from && decay == 0) return to;
  const V way = to - from;
  return near_from ? from + one_minus_decay * way : to - decay * way;
}

// Stores the new param, then what follows from it as it is stored.
template <Precision kPrecision, bool kRandom, typename T>
PYREG_INLINE void store_param(const UpdateArrays& a, const RandomNumbers& random, int64_t at, TwoVectors<T> param,
                              const UpdateScalars<T>& s) {
  store_two<kPrecision, kRandom>(a[kParam], random.of[kParam], at, param);
  if (a[kEma].data == nullptr && a[kParamOut].data == nullptr) return;
  if constexpr (kMixed<T, kPrecision>) param = load_two<kPrecision, T>(a[kParam], at);
  if (a[kEma].data != nullptr) {
    auto ema = load_two<kPrecision, T>(a[kEma], at);
    PYREG_UNROLL
    for (int k = 0; k < 2; ++k)
      ema.v[k] = lerp(ema.v[k], param.v[k], s.ema_decay >= T{0.5}, s.ema_decay, s.one_minus_ema_decay);
    store_two<kPrecision, kRandom>(a[kEma], random.of[kEma], at, ema);
  }
  if (a[kParamOut].data != nullptr) store_two<kPrecision, kRandom>(a[kParamOut], random.of[kParamOut], at, param);
}

}  // namespace
}  // namespace pyreg
