// Virtual lanes: every sum over a row uses the same lanes on every instruction set.
//
// A row is divided into groups of 128 bytes (32 floats or 16 doubles). Element i belongs to lane
// i mod Group<T>::kCount, each lane is summed in order, and the lanes are combined by halving:
// lane[i] += lane[i + w] for w = kCount/2, ..., 2, 1. A level holds a group in as many native vectors as it needs, so
// the width of its vectors never affects a result.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PYREG_INLINE inline __attribute__((always_inline))
// For code that many kernels use and that takes long enough to hide the cost of a call.
#define PYREG_NOINLINE __attribute__((noinline))
// Inlined only if vectors are wide. Without AVX2 a group of lanes takes eight vectors, and code unrolled over them is
// too large to repeat in every kernel.
#if defined(__AVX2__)
#define PYREG_INLINE_WIDE PYREG_INLINE
#else
#define PYREG_INLINE_WIDE PYREG_NOINLINE
#endif
#define PYREG_LAMBDA __attribute__((always_inline))
// For loops over the vectors of a group. Without it gcc keeps small arrays of vectors in memory.
#define PYREG_UNROLL _Pragma("GCC unroll 16")

namespace pyreg {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <bool kValue>
struct Flag {
  static constexpr bool value = kValue;
};

template <typename T>
struct Native;
template <>
struct Native<float> {
  typedef float vec __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
  static PYREG_INLINE mask index() {
    mask m{};
    for (int i = 0; i < kVectorBytes / 4; ++i) m[i] = i;
    return m;
  }
};
template <>
struct Native<double> {
  typedef double vec __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t bits __attribute__((vector_size(kVectorBytes)));
  static PYREG_INLINE mask index() {
    mask m{};
    for (int i = 0; i < kVectorBytes / 8; ++i) m[i] = i;
    return m;
  }
};

PYREG_INLINE Native<float>::vec square_root(Native<float>::vec x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(x);
#else
  for (size_t i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}
PYREG_INLINE Native<double>::vec square_root(Native<double>::vec x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_pd(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_pd(x);
#elif defined(__x86_64__)
  return _mm_sqrt_pd(x);
#else
  for (size_t i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// A mask of the lanes 0, ..., count - 1.
template <typename T>
PYREG_INLINE typename Native<T>::mask first_lanes(int count) {
  return Native<T>::index() < count;
}

// The first `count` elements at p, followed by zeros; p[count] is not touched.
template <typename T>
PYREG_INLINE_WIDE typename Native<T>::vec load_part(const T* p, int count) {
#if defined(__AVX512F__)
  const uint32_t bits = (1u << count) - 1;
  if constexpr (sizeof(T) == 4)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(bits), p);
  else
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(bits), p);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return _mm256_maskload_ps(p, (__m256i)first_lanes<T>(count));
  else
    return _mm256_maskload_pd(p, (__m256i)first_lanes<T>(count));
#else
  typename Native<T>::vec v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}

template <typename T>
PYREG_INLINE_WIDE void store_part(T* p, int count, typename Native<T>::vec v) {
#if defined(__AVX512F__)
  const uint32_t bits = (1u << count) - 1;
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(bits), v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(bits), v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    _mm256_maskstore_ps(p, (__m256i)first_lanes<T>(count), v);
  else
    _mm256_maskstore_pd(p, (__m256i)first_lanes<T>(count), v);
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// Stores past the caches, for results too large to stay there: their lines need not be read before they are written.
// p is aligned to a vector, and every line has to be written whole.
template <typename T>
PYREG_INLINE void store_nontemporal(T* p, typename Native<T>::vec v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__x86_64__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  std::memcpy(p, &v, sizeof v);
#endif
}

// Stores v, which is a vector or half of one, past the caches (p is aligned to it) or not. If gcc knew that the flag
// stays the same, it would compile each loop twice.
template <typename V>
PYREG_INLINE void store_either(void* p, V v, [[maybe_unused]] bool past_caches) {
#if defined(__x86_64__)
  asm volatile("" : "+r"(past_caches));
  if (past_caches) {
    if constexpr (sizeof v == kVectorBytes)
      store_nontemporal(static_cast<float*>(p), (Native<float>::vec)v);
    else
#if defined(__AVX512F__)
      _mm256_stream_si256(static_cast<__m256i*>(p), (__m256i)v);
#elif defined(__AVX2__)
      _mm_stream_si128(static_cast<__m128i*>(p), (__m128i)v);
#else
      _mm_stream_si64(static_cast<long long*>(p), (long long)v);
#endif
    return;
  }
#endif
  std::memcpy(p, &v, sizeof v);
}

// Ends a kernel that stored past the caches: other threads see those stores from here on.
PYREG_INLINE void nontemporal_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// The number of elements from p to where a cache line starts: 0 if one starts at p.
template <typename T>
PYREG_INLINE int64_t to_next_line(const T* p) {
  return static_cast<int64_t>(-reinterpret_cast<uintptr_t>(p) % kLineBytes / sizeof(T));
}

// float16 and bfloat16: the lanes of float, in which they are computed.
template <>
struct Native<float16> : Native<float> {};
template <>
struct Native<bfloat16> : Native<float> {};

// A group: how many lanes it has, how many lanes a vector has, and how many vectors a group takes.
template <typename S>
struct Group {
  static constexpr int kCount = kGroupBytes / sizeof(Compute<S>);
  static constexpr int kWidth = kVectorBytes / sizeof(Compute<S>);
  static constexpr int kVecs = kCount / kWidth;
};

// Whether vectors of S come in pairs: 2 * kWidth elements of a row, the even ones in the first and the odd ones in
// the second. Two bfloat16 make up 32 bits, so neither widening nor narrowing such vectors moves an element to
// another lane.
template <typename S>
constexpr bool kPaired = false;
template <>
constexpr bool kPaired<bfloat16> = true;

// A type whose vectors hold a row of plain floats in the same order: float16's do as float's.
template <typename S>
struct OrderOf {
  using type = S;
};
template <>
struct OrderOf<float16> {
  using type = float;
};

// How many neighbouring elements one vector, or a pair of them, holds.
template <typename S>
constexpr int kStep = kPaired<S> ? 2 * Group<S>::kWidth : Group<S>::kWidth;

// n rounded up to whole vectors, or pairs of them.
template <typename S>
constexpr int64_t whole_steps(int64_t n) {
  return (n + kStep<S> - 1) / kStep<S> * kStep<S>;
}

// The elements of a row of T: beside 16-bit elements, of whole vectors.
template <typename S>
constexpr int64_t row_elements(int64_t n) {
  return kHalf<S> ? whole_steps<S>(n) : n;
}

// The sums of a group's lanes.
template <typename S>
struct Accumulators {
  using T = Compute<S>;
  using vec = typename Native<T>::vec;
  static constexpr int kWidth = Group<S>::kWidth, kVecs = Group<S>::kVecs;

  vec v[kVecs];

  PYREG_INLINE Accumulators() {
    PYREG_UNROLL
    for (int k = 0; k < kVecs; ++k) v[k] = vec{};
  }

  // The sum of all lanes, by halving.
  PYREG_INLINE T sum() const {
    return halved([](auto a, auto b) PYREG_LAMBDA { return a + b; });
  }

  // Combines the lower half with the upper half, first of the vectors, then of the elements, until one is left. The
  // even elements of pairs and the odd ones are combined apart, until one of each is left.
  template <typename Combine>
  PYREG_INLINE T halved(Combine combine) const {
    constexpr int kApart = kPaired<S> ? 2 : 1;
    vec half[kVecs];
    PYREG_UNROLL
    for (int k = 0; k < kVecs; ++k) half[k] = v[k];
    PYREG_UNROLL
    for (int w = kVecs / 2; w >= kApart; w /= 2)
      for (int k = 0; k < w; ++k) half[k] = combine(half[k], half[k + w]);
    T lane[kApart * kWidth];
    std::memcpy(lane, half, sizeof lane);
    PYREG_UNROLL
    for (int w = kWidth / 2; w >= 1; w /= 2)
      for (int apart = 0; apart < kApart; ++apart)
        for (int k = 0; k < w; ++k)
          lane[apart * kWidth + k] = combine(lane[apart * kWidth + k], lane[apart * kWidth + k + w]);
    return kPaired<S> ? combine(lane[0], lane[kWidth]) : lane[0];
  }
};

// Of a vector `at` elements from the start of its row.
template <typename T>
PYREG_INLINE typename Native<T>::mask lanes_before(int64_t at, int64_t end) {
  const int64_t left = end - at;
  return first_lanes<T>(static_cast<int>(left < Group<T>::kWidth ? left : Group<T>::kWidth));
}

// Vector k of its group, `at` elements from the start of the row: a whole vector, or the first `count` elements of
// one. A loop body written for this interface works with both. Those of 16-bit elements are in kernels/half.h.
template <typename T>
struct WholeVector {
  using vec = typename Native<T>::vec;
  static constexpr bool kWhole = true;
  static constexpr int kWidth = Group<T>::kWidth;
  static constexpr bool kOfPair = false;
  int64_t at;
  int k;
  bool in_line;  // whether its whole cache line is in the row, if groups start on lines

  PYREG_INLINE vec load(const T* row) const {
    vec v;
    std::memcpy(&v, row + at, sizeof v);
    return v;
  }
  PYREG_INLINE void store(T* row, vec v) const { store_at(row + at, v); }
  PYREG_INLINE void store_at(T* p, vec v) const { std::memcpy(p, &v, sizeof v); }
  // v, with zeros after the row's last element.
  PYREG_INLINE vec only_row(vec v) const { return v; }
  // The lanes of the elements before `end`.
  PYREG_INLINE auto before(int64_t end) const { return lanes_before<T>(at, end); }
};

template <typename T>
struct PartVector {
  using vec = typename Native<T>::vec;
  static constexpr bool kWhole = false;
  static constexpr int kWidth = Group<T>::kWidth;
  static constexpr bool kOfPair = false;
  int64_t at;
  int k, count;

  PYREG_INLINE vec load(const T* row) const { return load_part(row + at, count); }
  PYREG_INLINE void store(T* row, vec v) const { store_at(row + at, v); }
  PYREG_INLINE void store_at(T* p, vec v) const { store_part(p, count, v); }
  PYREG_INLINE vec only_row(vec v) const { return first_lanes<T>(count) ? v : vec{}; }
  PYREG_INLINE auto before(int64_t end) const { return lanes_before<T>(at, end); }
};

// Calls take(k) for each vector of a group. Many short ones are taken in a loop: processors without AVX2 are rare,
// and not worth so much code.
template <typename S, typename Take>
PYREG_INLINE void each_of_group(Take take) {
  constexpr int kVecs = Group<S>::kVecs;
  if constexpr (kVecs > 4) {
#pragma GCC unroll 1
    for (int k = 0; k < kVecs; k += 2) {
      take(k);
      take(k + 1);
    }
  } else {
    PYREG_UNROLL
    for (int k = 0; k < kVecs; ++k) take(k);
  }
}

// Calls body(vector) for the vectors of a row's elements begin, ..., end - 1, in order: whole groups, then the rest.
template <typename S, typename Body>
PYREG_INLINE void each_vector(int64_t begin, int64_t end, Body body) {
  constexpr int kWidth = Group<S>::kWidth, kCount = Group<S>::kCount;
  int64_t at = begin;
  for (; at + kCount <= end; at += kCount)
    each_of_group<S>([&](int k) PYREG_LAMBDA { body(WholeVector<S>{at + k * kWidth, k, true}); });
  if (at == end) return;
  const int count = static_cast<int>(end - at);
  each_of_group<S>([&](int k) PYREG_LAMBDA {
    const int left = count - (kPaired<S> ? k & ~1 : k) * kWidth;
    if (kHalf<S> ? left > 0 : left < kWidth && left > 0)  // 16 bits: one body is enough for what ends a row
      body(PartVector<S>{at + k * kWidth, k, left < kStep<S> ? left : kStep<S>});
    else if (left >= kWidth)
      body(WholeVector<S>{at + k * kWidth, k, true});
  });
}

// The same for 16-bit elements in loops that do not sum over the row: a group at a time where it has four vectors,
// then two vectors at a time.
template <typename S, typename Body>
PYREG_INLINE void each_two_vectors(int64_t begin, int64_t end, Body body) {
  constexpr int kWidth = Group<S>::kWidth;
  int64_t at = begin;
  if constexpr (Group<S>::kVecs == 4) {
#pragma GCC unroll 1
    for (; at + 4 * kWidth <= end; at += 4 * kWidth)
      each_of_group<S>([&](int k) PYREG_LAMBDA { body(WholeVector<S>{at + k * kWidth, k, true}); });
  }
#pragma GCC unroll 1
  for (; at + 2 * kWidth <= end; at += 2 * kWidth) {
    body(WholeVector<S>{at, 0, true});
    body(WholeVector<S>{at + kWidth, 1, true});
  }
  if (at == end) return;
  const int left = static_cast<int>(end - at), second = kPaired<S> ? left : left - kWidth;
  body(PartVector<S>{at, 0, left < kStep<S> ? left : kStep<S>});
  if (second > 0) body(PartVector<S>{at + kWidth, 1, second});
}

// The same for loops that do not sum over the row, so no element needs a certain lane. (16-bit elements: without a
// lead.) The first `lead` elements of the row come separately, and the groups after them start on cache lines.
// `begin` is 0, or `lead` plus whole groups.
template <typename T, typename Body>
PYREG_INLINE void each_vector_from_line(int64_t begin, int64_t end, int64_t lead, Body body) {
  if constexpr (kHalf<T>) return each_two_vectors<T>(begin, end, body);
  constexpr int kWidth = Group<T>::kWidth, kCount = Group<T>::kCount, kLine = line_elements<T>();
  int64_t at = begin;
  // One vector at a time, up to `to`. Cache lines start at `from` and every kLine elements after it.
  const auto part = [&](int64_t from, int64_t to, bool in_line) PYREG_LAMBDA {
#pragma GCC unroll 1
    for (; at + kWidth <= to; at += kWidth) {
      const int64_t place = at - from;
      body(WholeVector<T>{at, static_cast<int>(place / kWidth), in_line && from + (place / kLine + 1) * kLine <= to});
    }
    if (at < to) body(PartVector<T>{at, static_cast<int>((at - from) / kWidth), static_cast<int>(to - at)});
    at = to;
  };
  if (begin == 0 && lead > 0) part(0, lead < end ? lead : end, false);
  for (; at + kCount <= end; at += kCount) {
    PYREG_UNROLL
    for (int k = 0; k < Group<T>::kVecs; ++k) body(WholeVector<T>{at + k * kWidth, k, true});
  }
  if (at < end) part(at, end, true);
}

// Prefetches the data kBytes ahead, once per cache line, into the first-level cache (kLocality 3) or the second (2).
template <int kBytes, int kLocality, typename Vector, typename T>
PYREG_INLINE void fetch_ahead(Vector vector, const T* row) {
  if (vector.k * Vector::kWidth * sizeof(T) % kLineBytes == 0)
    __builtin_prefetch(reinterpret_cast<const char*>(row + vector.at) + kBytes, 0, kLocality);
}

}  // namespace
}  // namespace pyreg
