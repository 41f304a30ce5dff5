// Single elements of 16 bits, for loops that are not in the kernels. The bits are those of kernels/half.h.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/table.h"

namespace pyreg {

template <typename T>
constexpr T widened(T x) {
  return x;
}
inline float widened(float32 x) { return x.value; }
inline float widened(bfloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
inline float widened(float16 x) {
  const uint32_t magnitude = x.bits & 0x7fff, sign = uint32_t{x.bits} << 16 & 0x80000000;
  uint32_t wide = (magnitude << 13) + (112u << 23);
  if (magnitude >= 0x7c00) wide += 112u << 23;
  if (magnitude > 0x7c00) wide |= 1u << 22;
  if (magnitude < 0x400) wide = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  return std::bit_cast<float>(wide | sign);
}

// x as an S.
template <typename S>
S narrowed(Compute<S> x) {
  return x;
}
template <>
inline bfloat16 narrowed<bfloat16>(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline float16 narrowed<float16>(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
  uint32_t half = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  if (magnitude >= 143u << 23) half = 0x7c00;
  if (magnitude > 255u << 23) half = 0x7e00 | (magnitude >> 13 & 0x3ff);
  if (magnitude < 113u << 23) half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
  return {static_cast<uint16_t>(half | sign)};
}

}  // namespace pyreg
