// Arrays whose types are known only when they are read: two neighbouring vectors of them, in order (but see
// load_two). A branch for each array and two vectors takes less time than an update's division and square root, and
// less code than a kernel for each combination of types.
#pragma once

#include "kernels/half.h"
#include "kernels/stochastic_rounding.h"

namespace pyreg {
namespace {

template <typename T>
struct TwoVectors {
  using vec = typename Native<T>::vec;
  static constexpr int kCount = 2 * Group<T>::kWidth;
  vec v[2];
};

// Whether other types than T are computed in T.
template <typename T>
constexpr bool kMayMix = std::is_same_v<T, float>;

template <typename T>
constexpr Type kTypeOf = std::is_same_v<T, float> ? Type::float32 : Type::float64;

PYREG_INLINE Words joined(HalfWords low, HalfWords high) {
#if defined(__AVX512F__)
  return (Words)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)low), (__m256i)high, 1);
#elif defined(__AVX2__)
  return (Words)_mm256_inserti128_si256(_mm256_castsi128_si256((__m128i)low), (__m128i)high, 1);
#else
  Words words;
  std::memcpy(&words, &low, sizeof low);
  std::memcpy(reinterpret_cast<char*>(&words) + sizeof low, &high, sizeof high);
  return words;
#endif
}

// Two vectors of bfloat16, in order. Zeros below the bits of a bfloat16 make it a float.
PYREG_INLINE TwoVectors<float> widen_two(bfloat16, const char* p) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i words = _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i*)p), 0xd8), zero{};
  return {(Floats)_mm256_unpacklo_epi16(zero, words), (Floats)_mm256_unpackhi_epi16(zero, words)};
#elif defined(__x86_64__) && !defined(__AVX512F__)
  const __m128i words = _mm_loadu_si128((const __m128i*)p), zero{};
  return {(Floats)_mm_unpacklo_epi16(zero, words), (Floats)_mm_unpackhi_epi16(zero, words)};
#else
  return {widen_in_order(bfloat16{}, p), widen_in_order(bfloat16{}, p + sizeof(HalfWords))};
#endif
}
PYREG_INLINE TwoVectors<float> widen_two(float16, const char* p) {
  return {widen_in_order(float16{}, p), widen_in_order(float16{}, p + sizeof(HalfWords))};
}

// The upper 16 bits of all elements, and the lower 16 bits. With AVX2, the middle quarters are swapped, and in_order
// swaps them back.
struct WordsOf {
  Words upper, lower;
};
PYREG_INLINE WordsOf words_of(FloatBits a, FloatBits b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i apart = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0d0c090805040100, 0x0f0e0b0a07060302));
  const __m256i x = _mm256_shuffle_epi8((__m256i)a, apart), y = _mm256_shuffle_epi8((__m256i)b, apart);
  return {(Words)_mm256_unpacklo_epi64(x, y), (Words)_mm256_unpackhi_epi64(x, y)};
#elif defined(__x86_64__) && !defined(__AVX512F__)
  const __m128i apart = _mm_set_epi64x(0x0d0c090805040100, 0x0f0e0b0a07060302);
  const __m128i x = _mm_shuffle_epi8((__m128i)a, apart), y = _mm_shuffle_epi8((__m128i)b, apart);
  return {(Words)_mm_unpacklo_epi64(x, y), (Words)_mm_unpackhi_epi64(x, y)};
#else
  const auto join = [](FloatBits low, FloatBits high) PYREG_LAMBDA {
    return joined(__builtin_convertvector(low, HalfWords), __builtin_convertvector(high, HalfWords));
  };
  return {join(a >> 16, b >> 16), join(a & 0xffff, b & 0xffff)};
#endif
}
PYREG_INLINE Words in_order(Words words) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  return (Words)_mm256_permute4x64_epi64((__m256i)words, 0xd8);
#else
  return words;
#endif
}

// Two vectors of floats as 16-bit words, in order.
PYREG_INLINE Words narrow_two(bfloat16, const TwoVectors<float>& x) {
  // As in half.h: half a unit is added, and a tie is made even.
  const auto [upper, lower] = words_of((FloatBits)plain(x.v[0]) + 0x8000, (FloatBits)plain(x.v[1]) + 0x8000);
  return in_order(upper & ~is_zero(lower));
}
PYREG_INLINE Words narrow_two(float16, const TwoVectors<float>& x) { return joined(narrow(x.v[0]), narrow(x.v[1])); }

// The same, rounded by random numbers.
PYREG_NOINLINE Words narrow_two_randomly(Type type, Floats a, Floats b, const uint16_t* random) {
  if (type == Type::bfloat16) {
    Words numbers;
    std::memcpy(&numbers, random, sizeof numbers);
    const auto [upper, lower] = words_of((FloatBits)plain(a), (FloatBits)plain(b));
    return in_order(with_carry(upper, lower, in_order(numbers)));
  }
  HalfWords numbers[2];
  std::memcpy(numbers, random, sizeof numbers);
  return joined(narrow_randomly(a, numbers[0]), narrow_randomly(b, numbers[1]));
}

// Whether the types of the arrays matter: otherwise all are of T.
template <typename T, Precision kPrecision>
constexpr bool kMixed = kMayMix<T> && kPrecision != Precision::same;

template <Precision kPrecision, typename T>
PYREG_INLINE TwoVectors<T> load_two(const Stored& array, int64_t at) {
  if constexpr (kPrecision == Precision::bfloat16) {
    // Even elements and odd ones. No element meets one of another place, so any order will do, and this is the
    // fastest.
    FloatBits both;
    std::memcpy(&both, array.data + 2 * at, sizeof both);
    return {(Floats)(both << 16), (Floats)(both & 0xffff0000)};
  }
  if constexpr (kMixed<T, kPrecision>) {
    if (array.type == Type::bfloat16) return widen_two(bfloat16{}, array.data + 2 * at);
    if (array.type == Type::float16) return widen_two(float16{}, array.data + 2 * at);
  }
  TwoVectors<T> x;
  PYREG_UNROLL
  for (int k = 0; k < 2; ++k)  // one by one: gcc would copy both through memory
    std::memcpy(&x.v[k], array.data + at * sizeof(T) + k * kVectorBytes, kVectorBytes);
  return x;
}

// Two vectors as 16-bit words, rounded to nearest, or by random numbers if there are some.
template <Precision kPrecision, bool kRandom>
PYREG_INLINE Words rounded_two(Type type, const TwoVectors<float>& x, [[maybe_unused]] const uint16_t* random) {
  if constexpr (kRandom) {
    if (kPrecision == Precision::bfloat16 && random) {
      Words numbers;
      std::memcpy(&numbers, random, sizeof numbers);
      return narrow_randomly(x.v[0], x.v[1], numbers);
    }
    if (random) return narrow_two_randomly(type, x.v[0], x.v[1], random);
  }
  return kPrecision == Precision::bfloat16 ? narrow(x.v[0], x.v[1])
         : type == Type::bfloat16          ? narrow_two(bfloat16{}, x)
                                           : narrow_two(float16{}, x);
}

// random: for the whole array; null if it is rounded to nearest.
template <Precision kPrecision, bool kRandom, typename T>
PYREG_INLINE void store_two(const Stored& array, [[maybe_unused]] const uint16_t* random, int64_t at,
                            const TwoVectors<T>& x) {
  if constexpr (kMixed<T, kPrecision>) {
    if (array.type != Type::float32) {
      const Words words = rounded_two<kPrecision, kRandom>(array.type, x, random ? random + at : nullptr);
      std::memcpy(array.data + 2 * at, &words, sizeof words);
      return;
    }
  }
  PYREG_UNROLL
  for (int k = 0; k < 2; ++k) std::memcpy(array.data + at * sizeof(T) + k * kVectorBytes, &x.v[k], kVectorBytes);
}

}  // namespace
}  // namespace pyreg
