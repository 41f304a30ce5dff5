// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11), in native vectors.
//
// Each 32-bit word of a counter has a 64-bit lane of its own. The widening multiply reads the low half of a lane and
// fills the whole, so nothing is repacked between rounds. The high half of a lane may hold anything: no step lets it
// affect a low half.
#pragma once

#include "kernels/lanes.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pyreg {
namespace {

typedef uint64_t U64s __attribute__((vector_size(kVectorBytes)));
constexpr int kPhiloxLanes = kVectorBytes / 8;  // blocks per vector

// The full 64-bit products of the low halves of the 64-bit lanes of a and b.
PYREG_INLINE U64s multiply_low_halves(U64s a, U64s b) {
#if defined(__AVX512F__)
  return (U64s)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (U64s)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (U64s)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
  return (U64s)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

struct PhiloxCounters {
  U64s word[4];
};

// Vectors of counters that go through the rounds together: while one waits for its multiplications, those of the
// other are under way.
constexpr int kPhiloxVectors = 2;

// The keys of all rounds. A round loads them from memory, so they need not be computed again and moved to vectors for
// each batch of counters.
class PhiloxKeys {
 public:
  PYREG_INLINE explicit PhiloxKeys(uint64_t key) {
    constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (auto& keys : of_round) keys[0] = k0, keys[1] = k1, k0 += kWeyl0, k1 += kWeyl1;
  }

  uint64_t of_round[10][2];
};

PYREG_INLINE PhiloxCounters philox_round(const PhiloxCounters& c, uint64_t k0, uint64_t k1) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  const U64s product0 = multiply_low_halves(c.word[0], U64s{} + kMultiplier0);
  const U64s product1 = multiply_low_halves(c.word[2], U64s{} + kMultiplier1);
  return {{(product1 >> 32) ^ (c.word[1] ^ k0), product1, (product0 >> 32) ^ (c.word[3] ^ k1), product0}};
}

// In place: counters become output.
template <int kVectors>
PYREG_INLINE void philox(PhiloxCounters (&c)[kVectors], const PhiloxKeys& key) {
#pragma GCC unroll 10
  for (const auto& [k0, k1] : key.of_round) {
    PYREG_UNROLL
    for (int v = 0; v < kVectors; ++v) c[v] = philox_round(c[v], k0, k1);
  }
}

typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes)));
constexpr int kBlockBytes = 16;

// The bytes of blocks first, ..., first + kVectors * kPhiloxLanes - 1 of the string (domain, digit), in order.
template <int kVectors = kPhiloxVectors>
struct PhiloxBytes {
  Bytes part[2 * kVectors];
};

template <int kVectors = kPhiloxVectors>
PYREG_INLINE PhiloxBytes<kVectors> philox_bytes(uint64_t first, uint32_t digit, uint32_t domain,
                                                const PhiloxKeys& key) {
  // Which block each lane computes: interleaving two registers below takes the even lanes first.
  U64s block{};
  for (int lane = 0; lane < kPhiloxLanes; ++lane) block[lane] = lane / 2 + (lane % 2) * (kPhiloxLanes / 2);
  block += first;
  PhiloxCounters counters[kVectors];
  PYREG_UNROLL
  for (int v = 0; v < kVectors; ++v, block += kPhiloxLanes)
    counters[v] = {{block, block >> 32, U64s{} + digit, U64s{} + domain}};
  philox(counters, key);
  PhiloxBytes<kVectors> bytes;
  PYREG_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const auto& word = counters[v].word;
    const U64s words01 = (word[0] & 0xffffffffu) | (word[1] << 32);
    const U64s words23 = (word[2] & 0xffffffffu) | (word[3] << 32);
#if defined(__AVX512F__)
    bytes.part[2 * v] = (Bytes)_mm512_unpacklo_epi64((__m512i)words01, (__m512i)words23);
    bytes.part[2 * v + 1] = (Bytes)_mm512_unpackhi_epi64((__m512i)words01, (__m512i)words23);
#elif defined(__AVX2__)
    bytes.part[2 * v] = (Bytes)_mm256_unpacklo_epi64((__m256i)words01, (__m256i)words23);
    bytes.part[2 * v + 1] = (Bytes)_mm256_unpackhi_epi64((__m256i)words01, (__m256i)words23);
#else
    bytes.part[2 * v] = (Bytes)U64s{words01[0], words23[0]};
    bytes.part[2 * v + 1] = (Bytes)U64s{words01[1], words23[1]};
#endif
  }
  return bytes;
}

}  // namespace
}  // namespace pyreg
