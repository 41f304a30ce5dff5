// Which elements dropout keeps, from the counter-based stream, version 1.
//
// Element i of the stream has the 32-bit number U_i, one byte from each of four strings of Philox output. It is kept
// if U_i >= threshold. The first byte decides 255 elements in 256; the others, the ties, need further bytes.
#pragma once

#include "kernels/dropout_scale.h"
#include "kernels/half.h"
#include "kernels/philox.h"

namespace pyreg {
namespace {

constexpr uint32_t kDropoutDomain = 0;
constexpr int kChunk = 4096;  // elements per chunk; their mask stays in the L1 cache until it is used
// The mask of this many elements after a chunk is made with the chunk's: the chunks of a row may be moved by less
// than a cache line, and the mask's bytes are read in whole vectors.
constexpr int kMaskBeyond = 64;
constexpr int kBatch = sizeof(PhiloxBytes<>);  // elements whose first bytes come from one call of philox_bytes

// Bit k of the result: whether byte k of a equals b.
PYREG_INLINE uint64_t equal_bits(Bytes a, uint8_t b) {
#if defined(__AVX512F__)
  return _mm512_cmpeq_epi8_mask((__m512i)a, _mm512_set1_epi8(static_cast<char>(b)));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_epi8((__m256i)(a == b)));
#elif defined(__x86_64__)
  return static_cast<uint32_t>(_mm_movemask_epi8((__m128i)(a == b)));
#else
  const Bytes equal = (Bytes)(a == b);
  uint64_t bits = 0;
  for (int k = 0; k < kVectorBytes; ++k) bits |= static_cast<uint64_t>(equal[k] & 1) << k;
  return bits;
#endif
}

// The mask of a chunk of elements, made batch by batch.
class ChunkMask {
 public:
  // Prepares the mask of `count` elements (at most kChunk + kMaskBeyond) from `offset` on, for 0 < threshold < 2**32.
  // None of it is made yet.
  PYREG_INLINE void start(uint64_t offset, int count, uint64_t threshold, uint64_t key) {
    skip_ = static_cast<int>(offset % kBlockBytes);
    first_ = offset - skip_;
    made_ = 0;
    wanted_ = count > 0 ? skip_ + count : 0;
    threshold_ = threshold;
    key_ = PhiloxKeys(key);
  }

  PYREG_INLINE bool unmade() const { return made_ < wanted_; }

  PYREG_INLINE void make_batch() {
    const int at = made_;
    made_ += kBatch;
    const uint8_t digit = static_cast<uint8_t>(threshold_ >> 24);
    const PhiloxBytes<> bytes = philox_bytes((first_ + at) / kBlockBytes, 0, kDropoutDomain, key_);
    PYREG_UNROLL
    for (int part = 0; part < kBatch / kVectorBytes; ++part) {
      const Bytes keep = (Bytes)(bytes.part[part] >= digit);
      std::memcpy(keep_ + at + part * kVectorBytes, &keep, sizeof keep);
      tied_[at / kVectorBytes + part] = equal_bits(bytes.part[part], digit);
    }
  }

  // Makes the rest of the mask, and decides the ties.
  PYREG_NOINLINE void finish() {
    while (unmade()) make_batch();
    if ((threshold_ & 0xffffff) != 0) decide_ties();  // else the first byte decides every element
  }

  // After finish(): 0xff if an element is kept, else 0.
  PYREG_INLINE const uint8_t* kept() const { return keep_ + skip_; }

 private:
  static constexpr uint64_t kTop = uint64_t{1} << 63;

  void decide_ties() {
    uint16_t tie[kChunk + 2 * kBatch];
    int ties = 0;
    for (int at = 0; at < made_; at += kVectorBytes) {
      uint64_t bits = tied_[at / kVectorBytes];
      // Usually there is none or one. Branchless: always store the first tie, advance only if it exists.
      tie[ties] = static_cast<uint16_t>(at + __builtin_ctzll(bits | kTop));
      ties += bits != 0;
      for (bits &= bits - 1; bits != 0; bits &= bits - 1)
        tie[ties++] = static_cast<uint16_t>(at + __builtin_ctzll(bits));
    }
    for (int digit = 1; ties > 0 && digit < 4; ++digit) ties = refine(tie, ties, digit);
  }

  // Keeps or drops the ties that byte `digit` of their number decides. Returns how many are left in the list.
  int refine(uint16_t* tie, int ties, int digit) {
    const uint32_t limit = (threshold_ >> (24 - 8 * digit)) & 0xff;
    const bool last = (threshold_ & ((uint64_t{1} << (24 - 8 * digit)) - 1)) == 0;
    int left = 0;
    constexpr int kAtOnce = kPhiloxVectors * kPhiloxLanes;
    for (int t = 0; t < ties; t += kAtOnce) {
      const int count = ties - t < kAtOnce ? ties - t : kAtOnce;
      U64s block[kPhiloxVectors] = {};
      for (int k = 0; k < count; ++k) block[k / kPhiloxLanes][k % kPhiloxLanes] = (first_ + tie[t + k]) / kBlockBytes;
      PhiloxCounters words[kPhiloxVectors];
      PYREG_UNROLL
      for (int v = 0; v < kPhiloxVectors; ++v)
        words[v] = {{block[v], block[v] >> 32, U64s{} + static_cast<uint32_t>(digit), U64s{} + kDropoutDomain}};
      philox(words, key_);
      for (int k = 0; k < count; ++k) {
        const int position = tie[t + k], place = position % kBlockBytes;
        const uint64_t word = words[k / kPhiloxLanes].word[place / 4][k % kPhiloxLanes];
        const uint32_t byte = (word >> (8 * (place % 4))) & 0xff;
        keep_[position] = byte >= limit ? 0xff : 0;
        tie[left] = static_cast<uint16_t>(position);
        left += byte == limit && !last;
      }
    }
    return left;
  }

  PhiloxKeys key_{0};
  uint64_t first_, threshold_;  // first_: the offset of keep_[0], divisible by kBlockBytes
  int skip_, made_, wanted_;    // skip_: elements of keep_ before the chunk
  alignas(kVectorBytes) uint8_t keep_[kChunk + 2 * kBatch];
  uint64_t tied_[(kChunk + 2 * kBatch) / kVectorBytes];  // one bit per element of keep_: 1 for a tie
};

#if defined(__x86_64__)
// The first sizeof(Bits) bytes at p. (The intrinsics for this load the wrong lane in early versions of GCC 11.)
template <typename Bits>
PYREG_INLINE __m128i load_bytes(const uint8_t* p) {
  Bits bits;
  std::memcpy(&bits, p, sizeof bits);
  return _mm_cvtsi64_si128(bits);
}
#endif

// The bytes at p, 0xff or 0, widened to lanes of T's size.
template <typename T>
PYREG_INLINE typename Native<T>::mask widen_mask(const uint8_t* p) {
  using mask = typename Native<T>::mask;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (mask)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
  return (mask)_mm512_cvtepi8_epi64(_mm_loadl_epi64((const __m128i*)p));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return (mask)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
  return (mask)_mm256_cvtepi8_epi64(load_bytes<uint32_t>(p));
#elif defined(__x86_64__)
  if constexpr (sizeof(T) == 4) return (mask)_mm_cvtepi8_epi32(load_bytes<uint32_t>(p));
  return (mask)_mm_cvtepi8_epi64(load_bytes<uint16_t>(p));
#else
  mask wide{};
  for (int k = 0; k < kVectorBytes / static_cast<int>(sizeof(T)); ++k) wide[k] = static_cast<int8_t>(p[k]);
  return wide;
#endif
}

// Every second of the bytes at p, 0xff or 0, widened to lanes of 32 bits.
template <bool kOdd>
PYREG_INLINE FloatMask widen_every_second(const uint8_t* p) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p));
  const __m256i even = _mm256_setr_epi8(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6,  //
                                        8, 8, 8, 8, 10, 10, 10, 10, 12, 12, 12, 12, 14, 14, 14, 14);
  return (FloatMask)_mm256_shuffle_epi8(bytes, _mm256_add_epi8(even, _mm256_set1_epi8(kOdd)));
#else
#if defined(__AVX512F__)
  const auto wide = (FloatMask)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__x86_64__)
  const auto wide = (FloatMask)_mm_cvtepi16_epi32(load_bytes<uint64_t>(p));
#else
  typedef int16_t Pairs __attribute__((vector_size(2 * kFloats)));
  Pairs pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  const FloatMask wide = __builtin_convertvector(pairs, FloatMask);
#endif
  return kOdd ? wide >> 8 : (wide << 24) >> 24;
#endif
}

// The bytes of a row, 0xff or 0, for a vector of the row. The first byte is that of element `begin`.
template <typename T, typename Vector>
PYREG_INLINE auto kept_lanes(Vector vector, const uint8_t* keep, int64_t begin = 0) {
  if constexpr (Vector::kOfPair)
    return vector.odd() ? widen_every_second<true>(keep + (vector.first() - begin))
                        : widen_every_second<false>(keep + (vector.first() - begin));
  else
    return widen_mask<T>(keep + (vector.at - begin));
}

// v if kept, else +0.
template <typename T>
PYREG_INLINE typename Native<T>::vec where_kept(typename Native<T>::vec v, typename Native<T>::mask kept) {
  return (typename Native<T>::vec)((typename Native<T>::mask)v & kept);
}

// x * scale if kept, else +0.
template <typename T>
PYREG_INLINE typename Native<T>::vec masked(typename Native<T>::vec x, T scale, typename Native<T>::mask kept) {
  return where_kept<T>(x * scale, kept);
}

}  // namespace
}  // namespace pyreg
