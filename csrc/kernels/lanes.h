// The virtual lanes: every sum over a row runs in the same lanes, on every instruction set.
//
// A row is cut into groups of 128 bytes (32 floats or 16 doubles). Element i belongs to lane
// i mod kCount, each lane is summed in order, and the lanes are combined by halving:
// lane[i] += lane[i + w] for w = kCount/2, ..., 2, 1. A level holds a group in as many of its native
// vectors as it takes, so its width never shows in a result.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PYREG_INLINE inline __attribute__((always_inline))
#define PYREG_LAMBDA __attribute__((always_inline))

namespace pyreg {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

PYREG_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
PYREG_INLINE double square_root(double x) { return __builtin_sqrt(x); }

template <typename T>
struct Native;
template <>
struct Native<float> {
  typedef float vec __attribute__((vector_size(kVectorBytes)));
  typedef int32_t mask __attribute__((vector_size(kVectorBytes)));
  static constexpr mask index() {
    mask m{};
    for (int i = 0; i < kVectorBytes / 4; ++i) m[i] = i;
    return m;
  }
};
template <>
struct Native<double> {
  typedef double vec __attribute__((vector_size(kVectorBytes)));
  typedef int64_t mask __attribute__((vector_size(kVectorBytes)));
  static constexpr mask index() {
    mask m{};
    for (int i = 0; i < kVectorBytes / 8; ++i) m[i] = i;
    return m;
  }
};

// The first `count` elements at p (0 < count < a vector), zeros behind them; p[count] is not touched.
template <typename T>
PYREG_INLINE typename Native<T>::vec load_partial(const T* p, int count) {
  typename Native<T>::vec v{};
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    v = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
  else
    v = _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
#elif defined(__AVX2__)
  auto wanted = Native<T>::index() < count;
  if constexpr (sizeof(T) == 4)
    v = _mm256_maskload_ps(p, (__m256i)wanted);
  else
    v = _mm256_maskload_pd(p, (__m256i)wanted);
#else
  for (int i = 0; i < count; ++i) v[i] = p[i];
#endif
  return v;
}

template <typename T>
PYREG_INLINE void store_partial(T* p, int count, typename Native<T>::vec v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

template <typename T>
struct Lanes {
  using vec = typename Native<T>::vec;
  static constexpr int kCount = 128 / sizeof(T);
  static constexpr int kWidth = kVectorBytes / sizeof(T);
  static constexpr int kVecs = kCount / kWidth;

  vec v[kVecs] = {};

  static PYREG_INLINE Lanes load(const T* p) {
    Lanes r;
    for (int k = 0; k < kVecs; ++k) std::memcpy(&r.v[k], p + k * kWidth, sizeof(vec));
    return r;
  }
  PYREG_INLINE void store(T* p) const {
    for (int k = 0; k < kVecs; ++k) std::memcpy(p + k * kWidth, &v[k], sizeof(vec));
  }

  // The halving tree.
  PYREG_INLINE T sum() const {
    Lanes half = *this;
    for (int w = kVecs / 2; w >= 1; w /= 2)
      for (int k = 0; k < w; ++k) half.v[k] += half.v[k + w];
    T lane[kWidth];
    std::memcpy(lane, &half.v[0], sizeof(vec));
    for (int w = kWidth / 2; w >= 1; w /= 2)
      for (int k = 0; k < w; ++k) lane[k] += lane[k + w];
    return lane[0];
  }
};

#define PYREG_LANES_OPERATOR(op)                                                \
  template <typename T>                                                         \
  PYREG_INLINE Lanes<T> operator op(Lanes<T> a, Lanes<T> b) {                   \
    for (int k = 0; k < Lanes<T>::kVecs; ++k) a.v[k] = a.v[k] op b.v[k];        \
    return a;                                                                   \
  }                                                                             \
  template <typename T>                                                         \
  PYREG_INLINE Lanes<T> operator op(Lanes<T> a, T b) {                          \
    for (int k = 0; k < Lanes<T>::kVecs; ++k) a.v[k] = a.v[k] op b;             \
    return a;                                                                   \
  }
PYREG_LANES_OPERATOR(+)
PYREG_LANES_OPERATOR(-)
PYREG_LANES_OPERATOR(*)
#undef PYREG_LANES_OPERATOR

// A group of a row, `at` elements from its start: all lanes, or the first `count` at the row's end.
// A loop body written against this interface serves both.
template <typename T>
struct WholeGroup {
  int64_t at;
  PYREG_INLINE Lanes<T> load(const T* row) const { return Lanes<T>::load(row + at); }
  PYREG_INLINE void store(T* row, Lanes<T> x) const { x.store(row + at); }
  PYREG_INLINE Lanes<T> only_row(Lanes<T> x) const { return x; }
};

template <typename T>
struct TailGroup {
  using L = Lanes<T>;
  int64_t at;
  int count;

  PYREG_INLINE Lanes<T> load(const T* row) const {
    L r;
    for (int k = 0; k < L::kVecs; ++k) {
      const int left = count - k * L::kWidth;
      const T* p = row + at + k * L::kWidth;
      if (left >= L::kWidth)
        std::memcpy(&r.v[k], p, sizeof(r.v[k]));
      else if (left > 0)
        r.v[k] = load_partial(p, left);
    }
    return r;
  }
  PYREG_INLINE void store(T* row, L x) const {
    for (int k = 0; k < L::kVecs; ++k) {
      const int left = count - k * L::kWidth;
      T* p = row + at + k * L::kWidth;
      if (left >= L::kWidth)
        std::memcpy(p, &x.v[k], sizeof(x.v[k]));
      else if (left > 0)
        store_partial(p, left, x.v[k]);
    }
  }
  // x with zeros in the lanes behind the row's end.
  PYREG_INLINE L only_row(L x) const {
    for (int k = 0; k < L::kVecs; ++k) {
      const typename Native<T>::mask inside = Native<T>::index() < count - k * L::kWidth;
      x.v[k] = inside ? x.v[k] : typename L::vec{};
    }
    return x;
  }
};

// body(group) for each group of a row of n elements, in order.
template <typename T, typename Body>
PYREG_INLINE void each_group(int64_t n, Body body) {
  int64_t at = 0;
  for (; at + Lanes<T>::kCount <= n; at += Lanes<T>::kCount) body(WholeGroup<T>{at});
  if (at < n) body(TailGroup<T>{at, static_cast<int>(n - at)});
}

}  // namespace
}  // namespace pyreg
