// Stochastic rounding to 16 bits, with random numbers from the counter-based stream, version 1.
//
// The bits of a float that do not fit are a fraction of the unit in the last place of what is stored. A random
// 16-bit number, as another such fraction, is added to them, and what is left is cut off: the larger neighbour is
// taken with a probability of just this fraction, so the expectation is exact. Element i of the stream takes number i
// of the string (domain 1, digit), two bytes each; the digit tells the arrays of an update apart (kernels/table.h).
#pragma once

#include "kernels/half.h"
#include "kernels/philox.h"

namespace pyreg {
namespace {

constexpr uint32_t kRoundingDomain = 1;
constexpr int kNumbersPerBlock = kBlockBytes / sizeof(uint16_t);

// Many vectors of counters at a time, because nothing else fills the time in which one waits for its multiplications.
// Without AVX-512 there are registers for three.
constexpr int kNumberVectors = kVectorBytes == 64 ? 4 : 3;
static_assert(kMostExtraNumbers * sizeof(uint16_t) >= sizeof(PhiloxBytes<1>) + kBlockBytes);

// Makes the numbers `at`, at + 1, ... of the string, in batches, as long as a whole one fits before `end`. `block` is
// that of number 0. Returns where it stopped.
template <int kVectors>
PYREG_INLINE int64_t make_batches(int64_t at, int64_t end, uint64_t block, uint32_t digit, const PhiloxKeys& keys,
                                  uint16_t* room) {
  constexpr int64_t kAtOnce = sizeof(PhiloxBytes<kVectors>) / sizeof(uint16_t);
#pragma GCC unroll 1
  for (; at + kAtOnce <= end; at += kAtOnce) {
    const auto bytes = philox_bytes<kVectors>(block + at / kNumbersPerBlock, digit, kRoundingDomain, keys);
    std::memcpy(room + at, &bytes, sizeof bytes);
  }
  return at;
}

// The numbers of n elements from `first` on. `room` has space for n + kMostExtraNumbers; they begin where the result
// points to.
inline const uint16_t* rounding_numbers(int64_t n, uint64_t key, uint32_t digit, uint64_t first, uint16_t* room) {
  const int64_t before = static_cast<int64_t>(first % kNumbersPerBlock), end = before + n;
  constexpr int64_t kLeast = sizeof(PhiloxBytes<1>) / sizeof(uint16_t);
  const uint64_t block = first / kNumbersPerBlock;
  const PhiloxKeys keys(key);
  const int64_t at = make_batches<kNumberVectors>(0, end, block, digit, keys, room);
  make_batches<1>(at, end + kLeast - 1, block, digit, keys, room);
  return room + before;
}

// The upper halves of numbers, plus 1 where `random` is carried out of the lower halves. A finite bfloat16 stays
// finite. Infinity has nothing in its lower half, nor has a NaN that is `plain`, or one that comes from bfloat16.
PYREG_INLINE Words with_carry(Words upper, Words lower, Words random) {
  constexpr uint16_t kLargest = 0x7f7f;
  const Words carry = (Words)((Words)(lower + random) < lower) & (Words)((upper & 0x7fff) != kLargest);
  return upper - carry;  // all ones: -1
}

// The even and the odd elements of a pair of vectors, as bfloat16.
PYREG_INLINE Words narrow_randomly(Floats even, Floats odd, Words random) {
  const FloatBits e = (FloatBits)even, o = (FloatBits)odd;
  return with_carry(alternating(e >> 16, o), alternating(e, o << 16), random);
}

// A vector as float16. A finite number stays finite: beyond the largest float16 it becomes that.
PYREG_NOINLINE HalfWords narrow_randomly(Floats x, HalfWords random) {
  constexpr uint32_t kSmallestNormal = 113u << 23, kLargest = 0x7bff;
  const FloatBits bits = (FloatBits)x, magnitude = bits & 0x7fffffff;
  const FloatBits numbers = __builtin_convertvector(random, FloatBits);
  FloatBits half = (magnitude - (112u << 23) + (numbers >> 3)) >> 13;
  half = (half > kLargest) ? FloatBits{} + kLargest : half;
  // Subnormal: 16 bits below the unit, which is 2**-24.
  const FloatBits small = (magnitude < kSmallestNormal) ? magnitude : FloatBits{};
  const FloatMask fixed = __builtin_convertvector((Floats)small * 0x1p40f, FloatMask);
  half = (magnitude < kSmallestNormal) ? ((FloatBits)fixed + numbers) >> 16 : half;
  half = (magnitude >= (255u << 23)) ? FloatBits{} + 0x7c00 : half;
  half = (magnitude > (255u << 23)) ? 0x7e00 | ((magnitude >> 13) & 0x3ff) : half;
  return __builtin_convertvector(half | (bits & 0x80000000) >> 16, HalfWords);
}

}  // namespace
}  // namespace pyreg
