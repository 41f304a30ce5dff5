// Rows of 16-bit elements: float16 and bfloat16. They are widened to floats where a kernel loads them, and rounded
// once, to nearest even, where it stores them. Every level gives the same bits, but for the payload of a NaN.
//
// Widening and narrowing take a few instructions each, so what counts is how few:
//
//   float16    AVX2's levels have an instruction for either. Otherwise it takes integers: F. Giesen, "Float->half
//              variants", 2012, gist.github.com/rygorous/2156668.
//   bfloat16   the upper half of a float. A register of 16-bit elements is widened to the vector of its even elements
//              by a shift, and to that of its odd ones by clearing bits: one instruction each, where widening in
//              order would take two. To narrow such a pair, half a unit is added to both, they are put side by side,
//              and a tie is made even in 16-bit lanes.
//
// The vectors of bfloat16 are therefore pairs: in each group of lanes, vector 0 holds the elements 0, 2, 4, ...,
// vector 1 the elements 1, 3, 5, ..., the next pair the elements after those. A row of plain floats beside them is in
// the same order, so it is loaded as it is. Such rows are padded to whole groups: of parameters, of sums, and of
// scratch.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

using Floats = Native<float>::vec;
using FloatMask = Native<float>::mask;
using FloatBits = Native<float>::bits;
constexpr int kFloats = Group<float>::kWidth;

// As many 16-bit elements as a vector has bytes for; and in half a vector, as many as a vector has floats.
typedef uint16_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

// The first `count` words at p, followed by zeros.
template <typename V>
PYREG_NOINLINE V load_words(const void* p, int count) {
  alignas(sizeof(V)) uint16_t words[sizeof(V) / 2] = {};
  for (int i = 0; i < count; ++i) std::memcpy(&words[i], static_cast<const char*>(p) + 2 * i, 2);
  V v;
  std::memcpy(&v, words, sizeof v);
  return v;
}

template <typename V>
PYREG_NOINLINE void store_words(void* p, int count, V v) {
  alignas(sizeof(V)) uint16_t words[sizeof(V) / 2];
  std::memcpy(words, &v, sizeof v);
  for (int i = 0; i < count; ++i) std::memcpy(static_cast<char*>(p) + 2 * i, &words[i], 2);
}

// The bytes at p, 0xff or 0, widened to 16-bit lanes: as many as V has.
template <typename V>
PYREG_INLINE V widen_to_words(const uint8_t* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) return (V)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) return (V)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
#endif
#if defined(__SSE4_1__)
  if constexpr (sizeof(V) == 16) return (V)_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i*)p));
#endif
  V words{};
  for (size_t i = 0; i < sizeof(V) / 2; ++i) words[i] = static_cast<uint16_t>(static_cast<int8_t>(p[i]));
  return words;
}

// --- float16

PYREG_INLINE_WIDE Floats widen(HalfWords half) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps((__m256i)half);
#elif defined(__AVX2__)
  return (Floats)_mm256_cvtph_ps((__m128i)half);
#else
  const FloatBits h = __builtin_convertvector(half, FloatBits);
  const FloatBits magnitude = (h & 0x7fff) << 13;
  FloatBits wide = magnitude + (112u << 23);
  // Infinite, or NaN, which becomes quiet.
  wide = (magnitude >= (0x7c00u << 13)) ? wide + (112u << 23) : wide;
  wide = (magnitude > (0x7c00u << 13)) ? wide | (1u << 22) : wide;
  // Subnormal: the bits as the fraction of a number of exponent -14, minus the leading 1 that they got there.
  const Floats subnormal = (Floats)(wide + (1u << 23)) - 0x1p-14f;
  wide = (magnitude < (0x400u << 13)) ? (FloatBits)subnormal : wide;
  return (Floats)(wide | (h & 0x8000) << 16);
#endif
}

PYREG_INLINE_WIDE HalfWords narrow(Floats x) {
#if defined(__AVX512F__)
  return (HalfWords)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (HalfWords)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
  const FloatBits bits = (FloatBits)x, magnitude = bits & 0x7fffffff;
  // Normal: one bit of the sum is enough for a tie to go to the even neighbour. Beyond the largest, the carry gives
  // inf.
  FloatBits half = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  half = (magnitude >= (143u << 23)) ? FloatBits{} + 0x7c00 : half;
  half = (magnitude > (255u << 23)) ? 0x7e00 | ((magnitude >> 13) & 0x3ff) : half;
  // Subnormal: added to 0.5, a float's last bit is float16's, so the addition rounds.
  const FloatBits subnormal = (FloatBits)((Floats)magnitude + 0.5f) - (126u << 23);
  half = (magnitude < (113u << 23)) ? subnormal : half;
  return __builtin_convertvector(half | (bits & 0x80000000) >> 16, HalfWords);
#endif
}

// --- bfloat16

// x, or the default NaN in place of any NaN. Rounding would carry a NaN whose upper bits are all ones into -0. NaNs
// that come from bfloat16, or that arithmetic makes of other numbers, have no bits to round, and arithmetic keeps
// them. So only what kernels read as floats has to pass through here.
PYREG_INLINE Floats plain(Floats x) { return x == x ? x : Floats{} + __builtin_nanf(""); }
template <typename T>
PYREG_INLINE T plain(T x) {
  return x == x ? x : static_cast<T>(__builtin_nan(""));
}
template <bool kWanted, typename T>
PYREG_INLINE T plain_if(T x) {
  return kWanted ? plain(x) : x;
}

// 16-bit lanes, the even ones from a and the odd ones from b.
PYREG_INLINE Words alternating(FloatBits a, FloatBits b) {
#if defined(__AVX512F__)
  return (Words)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Words)_mm256_blend_epi16((__m256i)a, (__m256i)b, 0xaa);
#elif defined(__SSE4_1__)
  return (Words)_mm_blend_epi16((__m128i)a, (__m128i)b, 0xaa);
#else
  return (Words)((a & 0xffff) | (b & 0xffff0000));
#endif
}

// 1 in lanes that are 0, 0 in the others.
PYREG_INLINE Words is_zero(Words v) {
#if defined(__AVX512F__)
  return (Words)_mm512_subs_epu16(_mm512_set1_epi16(1), (__m512i)v);
#elif defined(__AVX2__)
  return (Words)_mm256_subs_epu16(_mm256_set1_epi16(1), (__m256i)v);
#elif defined(__x86_64__)
  return (Words)_mm_subs_epu16(_mm_set1_epi16(1), (__m128i)v);
#else
  return (Words)(v == 0) >> 15;
#endif
}

// Rounds by adding half a unit. After a tie nothing is left below the unit, and the result must be made even. That is
// right for a NaN too, if it is `plain`: to look for others here took 13 % of layer_norm_forward's time.
PYREG_INLINE Words narrow(Floats even, Floats odd) {
  const FloatBits e = (FloatBits)even + 0x8000, o = (FloatBits)odd + 0x8000;
  const Words high = alternating(e >> 16, o), low = alternating(e, o << 16);
  return high & ~is_zero(low);
}

// The even or the odd elements of a and b, in order.
template <bool kOdd>
PYREG_INLINE Floats every_second(Floats a, Floats b) {
#if defined(__AVX512F__)
  Native<float>::mask place{};
  for (int i = 0; i < kFloats; ++i) place[i] = 2 * i + kOdd;
  return (Floats)_mm512_permutex2var_ps((__m512)a, (__m512i)place, (__m512)b);
#elif defined(__AVX2__)
  const __m256 mixed = _mm256_shuffle_ps((__m256)a, (__m256)b, kOdd ? 0xdd : 0x88);
  return (Floats)_mm256_permute4x64_pd((__m256d)mixed, 0xd8);
#elif defined(__x86_64__)
  return (Floats)_mm_shuffle_ps((__m128)a, (__m128)b, kOdd ? 0xdd : 0x88);
#else
  Floats v{};
  for (int i = 0; i < kFloats; ++i) v[i] = 2 * i + kOdd < kFloats ? a[2 * i + kOdd] : b[2 * i + kOdd - kFloats];
  return v;
#endif
}

// Elements in their order.
PYREG_INLINE Floats widen_in_order(float16, const void* x) {
  HalfWords half;
  std::memcpy(&half, x, sizeof half);
  return widen(half);
}
PYREG_INLINE Floats widen_in_order(bfloat16, const void* x) {
  HalfWords half;
  std::memcpy(&half, x, sizeof half);
#if defined(__AVX2__) && !defined(__AVX512F__)  // gcc would convert it in halves
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)half), 16);
#else
  return (Floats)(__builtin_convertvector(half, FloatBits) << 16);
#endif
}

template <typename S>
PYREG_NOINLINE void widen_elements(int64_t n, const S* x, float* wide) {
  int64_t i = 0;
  for (; i + kFloats <= n; i += kFloats) {
    const Floats floats = widen_in_order(S{}, x + i);
    std::memcpy(wide + i, &floats, sizeof floats);
  }
  if (i == n) return;
  const HalfWords rest = load_words<HalfWords>(x + i, static_cast<int>(n - i));
  const Floats floats = widen_in_order(S{}, &rest);
  std::memcpy(wide + i, &floats, (n - i) * sizeof(float));
}

// --- the vectors of a row

// As WholeVector of floats. Loads from, and stores to, arrays of S or float32, and rows of plain floats.
template <typename S, bool kIsWhole>
struct HalfVector {
  using vec = Floats;
  static constexpr bool kWhole = kIsWhole;
  static constexpr int kWidth = kFloats;
  static constexpr bool kOfPair = kPaired<S>;
  int64_t at;
  int k;
  int count;  // how many elements are left, from `first()` on; not used in a whole vector

  // Of a pair: whether this is its second vector; the place in an array of the pair's first element.
  PYREG_INLINE bool odd() const { return kPaired<S> && (k & 1) != 0; }
  PYREG_INLINE int64_t first() const { return odd() ? at - kFloats : at; }
  // The elements that lanes are from, relative to the first.
  PYREG_INLINE FloatMask places() const {
    const FloatMask index = Native<float>::index();
    return kPaired<S> ? 2 * index + (odd() ? 1 : 0) : index;
  }

  PYREG_INLINE vec load(const float* row) const {
    vec v;
    std::memcpy(&v, row + at, sizeof v);
    return v;
  }
  PYREG_INLINE void store(float* row, vec v) const { std::memcpy(row + at, &v, sizeof v); }

  PYREG_INLINE vec load(const S* row) const {
    if constexpr (kPaired<S>) {
      const auto both = (FloatBits)words<Words>(row + first());
      return (vec)(odd() ? both & 0xffff0000 : both << 16);
    } else {
      return widen(words<HalfWords>(row + at));
    }
  }
  // The second vector of a pair stores both; `even` is the first. past_caches: only for whole vectors,
  // at places aligned to them.
  PYREG_INLINE void store(S* row, vec v, vec even, bool past_caches) const {
    if constexpr (!kPaired<S>)
      put(row + at, narrow(v), past_caches);
    else if (odd())
      put(row + first(), narrow(even, v), past_caches);
  }

  PYREG_INLINE vec load(const float32* row) const {
    if constexpr (!kPaired<S>) return floats(row + at, count);
    const vec a = floats(row + first(), count), b = floats(row + first() + kFloats, count - kFloats);
    return plain(odd() ? every_second<true>(a, b) : every_second<false>(a, b));
  }
  PYREG_INLINE void store(float32* row, vec v, vec even, bool) const {
    if constexpr (kPaired<S>) {
      if (!odd()) return;
      float both[2 * kFloats];
      for (int i = 0; i < kFloats; ++i) both[2 * i] = even[i], both[2 * i + 1] = v[i];
      std::memcpy(row + first(), both, (kWhole ? 2 * kFloats : count) * sizeof(float));
    } else {
      std::memcpy(row + at, &v, (kWhole ? kFloats : count) * sizeof(float));
    }
  }

  // The same for elements whose byte of `keep` is 0xff, and +0 where it is 0. keep: from the vector's first element
  // on.
  PYREG_INLINE void store_kept(S* row, vec v, vec even, const uint8_t* keep, bool past_caches) const {
    if constexpr (!kPaired<S>)
      put(row + at, narrow(v) & widen_to_words<HalfWords>(keep), past_caches);
    else if (odd())
      put(row + first(), narrow(even, v) & widen_to_words<Words>(keep), past_caches);
  }

  // Stores v to an array, unless `row` is null, and what it then is there to a row of plain floats.
  PYREG_INLINE void store_rounded(S* row, float* wide, vec v, vec even, bool past_caches) const {
    if constexpr (!kPaired<S>) {
      const HalfWords half = narrow(v);
      if (row) put(row + at, half, past_caches);
      store(wide, widen(half));
    } else if (odd()) {
      const Words both = narrow(even, v);
      if (row) put(row + first(), both, past_caches);
      const vec wide_even = (vec)((FloatBits)both << 16), wide_odd = (vec)((FloatBits)both & 0xffff0000);
      std::memcpy(wide + first(), &wide_even, sizeof(vec));
      std::memcpy(wide + at, &wide_odd, sizeof(vec));
    }
  }
  PYREG_INLINE void store_rounded(float32* row, float* wide, vec v, vec even, bool past_caches) const {
    if (row) store(row, v, even, past_caches);
    store(wide, v);
  }

  PYREG_INLINE vec only_row(vec v) const { return kWhole ? v : places() < count ? v : vec{}; }
  PYREG_INLINE FloatMask before(int64_t end) const {
    const int64_t left = end - first();
    return places() < static_cast<int>(left < kStep<S> ? left : kStep<S>);
  }

 private:
  template <typename V>
  PYREG_INLINE V words(const S* p) const {
    if constexpr (!kWhole) return load_words<V>(p, count);
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  template <typename V>
  PYREG_INLINE void put(S* p, V v, bool past_caches) const {
    if constexpr (!kWhole) return store_words(p, count, v);
    store_either(p, v, past_caches);
  }
  // `many` are left from p on.
  PYREG_INLINE vec floats(const float32* p, int many) const {
    if (!kWhole && many < kFloats) return many <= 0 ? vec{} : load_part(&p->value, many);
    vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
};

template <>
struct WholeVector<float16> : HalfVector<float16, true> {
  PYREG_INLINE WholeVector(int64_t at, int k, bool) : HalfVector{at, k, 0} {}
};
template <>
struct WholeVector<bfloat16> : HalfVector<bfloat16, true> {
  PYREG_INLINE WholeVector(int64_t at, int k, bool) : HalfVector{at, k, 0} {}
};
template <>
struct PartVector<float16> : HalfVector<float16, false> {};
template <>
struct PartVector<bfloat16> : HalfVector<bfloat16, false> {};

// Stores vectors to a row of S or float32, in order. The first vector of a pair waits here for the second.
template <typename E>
struct HalfStore {
  E* row;
  bool past_caches = false;
  mutable Floats even{};

  template <typename Vector>
  PYREG_INLINE void store(Vector vector, Floats v) const {
    vector.store(row, v, even, past_caches);
    if (!vector.odd()) even = v;
  }
  // keep: the bytes of the row from element `begin` on.
  template <typename Vector>
  PYREG_INLINE void store_kept(Vector vector, Floats v, const uint8_t* keep, int64_t begin) const {
    vector.store_kept(row, v, even, keep + (vector.first() - begin), past_caches);
    if (!vector.odd()) even = v;
  }
  template <typename Vector>
  PYREG_INLINE void store_rounded(Vector vector, Floats v, float* wide) const {
    vector.store_rounded(row, wide, v, even, past_caches);
    if (!vector.odd()) even = v;
  }
};

// Converts a row (n), or a part of it, between an array's order and that of the vectors.
template <typename S, typename E>
PYREG_NOINLINE void to_vectors(int64_t n, const E* row, float* vectors) {
  each_two_vectors<S>(0, n, [&](auto vector) PYREG_LAMBDA { vector.store(vectors, vector.load(row)); });
}

template <typename S, typename E>
PYREG_NOINLINE void from_vectors(int64_t n, const float* vectors, E* row) {
  const HalfStore<E> target{row};
  each_two_vectors<S>(0, n, [&](auto vector) PYREG_LAMBDA { target.store(vector, vector.load(vectors)); });
}

}  // namespace
}  // namespace pyreg
