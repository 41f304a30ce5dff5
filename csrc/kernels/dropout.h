// Inverted dropout (Srivastava et al., JMLR 15, 2014) from the counter-based stream, version 1.
//
// Element i of the stream has the 32-bit number U_i, one byte from each of four strings of Philox
// output. It is kept where U_i >= threshold. The first byte decides for 255 elements in 256; the others,
// the ties, are refined with further bytes.
#pragma once

#include "kernels/philox.h"

namespace pyreg {
namespace {

constexpr uint32_t kDropoutDomain = 0;
constexpr uint64_t kDropAll = uint64_t{1} << 32;
constexpr int kChunk = 4096;  // elements whose mask is made before it is used: it stays in the L1 cache
constexpr int kBatch = 2 * kVectorBytes;  // elements whose first bytes come from one philox_bytes

// Bit k of the result: the top bit of byte k.
PYREG_INLINE uint64_t top_bits(Bytes bytes) {
#if defined(__AVX512F__)
  return _mm512_movepi8_mask((__m512i)bytes);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_epi8((__m256i)bytes));
#elif defined(__x86_64__)
  return static_cast<uint32_t>(_mm_movemask_epi8((__m128i)bytes));
#else
  uint64_t bits = 0;
  for (int k = 0; k < kVectorBytes; ++k) bits |= static_cast<uint64_t>(bytes[k] >> 7) << k;
  return bits;
#endif
}

// The mask of a chunk, 0xff where an element is kept. It starts at an index divisible by kBlockBytes.
struct ChunkMask {
  uint8_t keep[kChunk + kBatch];
  uint16_t tie[kChunk + kBatch];  // positions in `keep`, not yet decided
  int ties;

  // For 0 < threshold < 2**32; `first` is divisible by kBlockBytes, count <= kChunk + kBlockBytes.
  void make(uint64_t first, int count, uint64_t threshold, uint64_t key) {
    const uint8_t digit = static_cast<uint8_t>(threshold >> 24);
    ties = 0;
    const bool exact = (threshold & 0xffffff) == 0;  // the first byte decides every element
    for (int at = 0; at < count; at += kBatch) {
      const PhiloxBytes bytes = philox_bytes((first + at) / kBlockBytes, 0, kDropoutDomain, key);
      compare(bytes.low, digit, at, exact);
      compare(bytes.high, digit, at + kVectorBytes, exact);
    }
    for (int d = 1; ties > 0 && d < 4; ++d)
      refine(first, static_cast<uint32_t>(d), threshold, key);
  }

 private:
  PYREG_INLINE void compare(Bytes bytes, uint8_t digit, int at, bool exact) {
    const Bytes kept = (Bytes)(bytes >= digit);
    std::memcpy(keep + at, &kept, sizeof kept);
    if (exact) return;
    for (uint64_t bits = top_bits((Bytes)(bytes == digit)); bits != 0; bits &= bits - 1)
      tie[ties++] = static_cast<uint16_t>(at + __builtin_ctzll(bits));
  }

  // Ties that byte `d` of their number decides are kept or dropped, the rest stay in the list.
  void refine(uint64_t first, uint32_t d, uint64_t threshold, uint64_t key) {
    const uint32_t digit = (threshold >> (24 - 8 * d)) & 0xff;
    const bool last = (threshold & ((uint64_t{1} << (24 - 8 * d)) - 1)) == 0;
    int left = 0;
    for (int t = 0; t < ties; t += kPhiloxLanes) {
      const int lanes = ties - t < kPhiloxLanes ? ties - t : kPhiloxLanes;
      U64s block{};
      for (int lane = 0; lane < lanes; ++lane) block[lane] = (first + tie[t + lane]) / kBlockBytes;
      const PhiloxCounters out = philox({{block, block >> 32, U64s{} + d, U64s{} + kDropoutDomain}}, key);
      for (int lane = 0; lane < lanes; ++lane) {
        const int position = tie[t + lane];
        const int byte_in_block = position % kBlockBytes;
        const uint32_t byte = (out.word[byte_in_block / 4][lane] >> (8 * (byte_in_block % 4))) & 0xff;
        if (byte < digit) keep[position] = 0;
        if (byte == digit && !last) tie[left++] = static_cast<uint16_t>(position);
      }
    }
    ties = left;
  }
};

// y[i] = x[i] * scale where keep[i], else +0.
template <typename T>
PYREG_INLINE void apply_mask(int count, const uint8_t* keep, const T* x, T scale, T* y) {
  using vec = typename Native<T>::vec;
  using mask = typename Native<T>::mask;
  constexpr int kWidth = kVectorBytes / sizeof(T);
  typedef int8_t Narrow __attribute__((vector_size(kWidth)));
  int i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    Narrow narrow;
    vec value;
    std::memcpy(&narrow, keep + i, sizeof narrow);
    std::memcpy(&value, x + i, sizeof value);
    value = (vec)((mask)(value * scale) & __builtin_convertvector(narrow, mask));
    std::memcpy(y + i, &value, sizeof value);
  }
  for (; i < count; ++i) y[i] = keep[i] ? x[i] * scale : T{0};
}

// visit(position, count, keep) for each chunk of n elements of the stream from `index` on.
template <typename Visit>
PYREG_INLINE void each_mask(int64_t n, uint64_t threshold, uint64_t key, uint64_t index, Visit visit) {
  ChunkMask mask;
  for (int64_t at = 0; at < n; at += kChunk) {
    const int count = static_cast<int>(n - at < kChunk ? n - at : kChunk);
    const int skip = static_cast<int>((index + at) % kBlockBytes);
    mask.make(index + at - skip, skip + count, threshold, key);
    visit(at, count, mask.keep + skip);
  }
}

// x, y (n); y may be x. index: that of x[0] in the stream.
template <typename T>
void dropout(int64_t n, const T* x, uint64_t threshold, uint64_t key, uint64_t index, T* y) {
  if (threshold == kDropAll) {
    std::memset(y, 0, n * sizeof(T));
  } else if (threshold == 0) {
    if (y != x) std::memcpy(y, x, n * sizeof(T));
  } else {
    const T scale = static_cast<T>(0x1p32 / static_cast<double>(kDropAll - threshold));
    each_mask(n, threshold, key, index, [&](int64_t at, int count, const uint8_t* keep) PYREG_LAMBDA {
      apply_mask(count, keep, x + at, scale, y + at);
    });
  }
}

// kept (n): 1 where the element is kept, else 0.
inline void dropout_mask(int64_t n, uint64_t threshold, uint64_t key, uint64_t index, uint8_t* kept) {
  if (threshold == kDropAll || threshold == 0) {
    std::memset(kept, threshold == 0, n);
  } else {
    each_mask(n, threshold, key, index, [&](int64_t at, int count, const uint8_t* keep) PYREG_LAMBDA {
      for (int i = 0; i < count; ++i) kept[at + i] = keep[i] & 1;
    });
  }
}

}  // namespace
}  // namespace pyreg
