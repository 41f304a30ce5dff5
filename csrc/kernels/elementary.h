// The exponential, and sigmoid and normal, which are computed from it, in native vectors. libm's results differ from
// machine to machine. These functions use only + - * /, in a fixed order, and powers of two assembled from their
// bits.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

// The functions' constants for a dtype, and the polynomials' coefficients, lowest power first.
//
// The coefficients are not from a table. kExp: the polynomial with the smallest maximum relative error for exp
// (Remez), 2**-28.2 in float32 and 2**-57.9 in float64. kMills: interpolation at Chebyshev nodes up to where the tail
// is 0, in 60 digits, with relative errors of 2**-29.6 and 2**-60.7. Of the knots from 1.5 to 6, these needed the
// lowest degree. The parts of log(2) are Cody and Waite's in float32, and those of fdlibm's e_exp.c in float64.
template <typename T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr int kSignificandBits = 23;  // without the leading 1
  static constexpr int32_t kBias = 127;        // of the exponent
  // kLn2High ends in so many zero bits that its products with exponents are exact.
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440054690583e-4f;
  static constexpr float kLowest = -131.7f;  // from here on, exp is a product with 0: see exp()
  static constexpr float kSmall = -80;       // below this, the power of two is applied in two steps
  static constexpr int kLowBits = 12;        // cut off so that a square is exact
  // (exp(r) - 1 - r) / r**2, for |r| <= log(2) / 2. `rest` takes r a little beyond, where this is as accurate
  static constexpr float kExp[] = {0.4999999344959784f, 0.16666520661175288f, 0.041668387753408115f,
                                   0.00836871332491591f, 0.0013814602915224747f};
  // The normal distribution's tail is 0 in this dtype from 14.5 on. At this, the exponential is beyond kLowest.
  static constexpr float kFar = 16.3f;
  // See normal().
  static constexpr float kKnot = 3;
  static constexpr float kMills[] = {0.7290836907008341f,     -0.5093319893987576f,    0.23001767738406945f,
                                     -0.047262748695582855f,  -0.010462291852050493f,  0.0069698359021068135f,
                                     0.0010241368772241106f,  -0.0010342788589033651f, -0.0002446061924931603f,
                                     0.00013317308395859755f, 5.5386575368302916e-05f};
};

template <>
struct Constants<double> {
  static constexpr int kSignificandBits = 52;
  static constexpr int64_t kBias = 1023;
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLowest = -1063.3;
  static constexpr double kSmall = -690;
  static constexpr int kLowBits = 27;
  static constexpr double kExp[] = {0.5000000000000011,    0.16666666666666413,   0.04166666666653021,
                                    0.008333333333494399,  0.001388888894361363,  0.00019841269506671647,
                                    2.480149311779016e-05, 2.755758632882884e-06, 2.7630241076570435e-07,
                                    2.500006370244427e-08};
  static constexpr double kFar = 46.2;  // the tail is 0 from 38.75 on
  static constexpr double kKnot = 5;
  static constexpr double kMills[] = {
      0.769193049750063,      -0.6653825028900568,    0.4953056159699761,      -0.31353315667128745,
      0.16502036617040713,    -0.06911863870687814,   0.020795066799260343,    -0.002993376761868743,
      -0.0007978693892958589, 0.0005448989927584027,  -5.9375807358891235e-05, -4.976245616870157e-05,
      1.6681639595174005e-05, 3.97980489932909e-06,   -2.7707204135122383e-06, -3.345738518771817e-07,
      4.362925568222539e-07,  4.0177962891473734e-08, -7.014220631960926e-08,  -8.555696628254633e-09,
      1.0797345335746256e-08, 2.220848621773149e-09,  -1.160886448380309e-09,  -3.81618035300424e-10};
};

template <typename T>
constexpr T power_of_half(int exponent) {
  T power = 1;
  for (int i = 0; i < exponent; ++i) power /= 2;
  return power;
}

// Horner's scheme.
template <typename T, int kTerms>
PYREG_INLINE typename Native<T>::vec polynomial(const T (&coefficients)[kTerms], typename Native<T>::vec x) {
  typename Native<T>::vec value = typename Native<T>::vec{} + coefficients[kTerms - 1];
#pragma GCC unroll 24
  for (int i = kTerms - 2; i >= 0; --i) value = value * x + coefficients[i];
  return value;
}

// exp(x + rest), for x <= 0 and a rest that is small compared with 1. With x = k * log(2) + r, exp(x) = 2**k * exp(r)
// (Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 6).
//
// An x below kLowest is replaced by it. There the bits of the power of two are those of 0, so exp(-inf), which is
// frequent in softmax, is a product with 0. A product that underflows takes some hundred cycles.
template <typename T, bool kRest = false>
PYREG_INLINE typename Native<T>::vec exp(typename Native<T>::vec x,
                                         typename Native<T>::vec rest = typename Native<T>::vec{}) {
  using vec = typename Native<T>::vec;
  using bits = typename Native<T>::bits;
  using F = Constants<T>;
  using Integer = decltype(F::kBias);
  const typename Native<T>::mask small = x < F::kSmall;
  x = x < F::kLowest ? vec{} + F::kLowest : x;
  // Adding it leaves the nearest integer in the last bits of the sum.
  constexpr T kMagic = static_cast<T>(1.5 * static_cast<double>(Integer{1} << F::kSignificandBits));
  const vec shifted = x * static_cast<T>(1.4426950408889634) + kMagic;
  const vec k = shifted - kMagic;
  vec r = (x - k * F::kLn2High) - k * F::kLn2Low;
  if constexpr (kRest) r = r + rest;
  // 1 + r; its rounding error is added below.
  const vec sum = r + T{1};
  vec value = sum + ((r * r) * polynomial(F::kExp, r) + (r - (sum - T{1})));
  // Multiplies by 2**k. If that may be subnormal, first by 2**(k + bias / 2) and last by the rest: the result is
  // rounded only once.
  // Unsigned, because the bits of a NaN may overflow.
  constexpr Integer kHalf = F::kBias / 2;
  const bits bias = bits{} + (F::kBias << F::kSignificandBits), half = bits{} + (kHalf << F::kSignificandBits);
  const bits power = ((bits)shifted << F::kSignificandBits) + bias + ((bits)small & half);
  value = value * (vec)power;
  constexpr T kStep = power_of_half<T>(kHalf);
  return small ? value * kStep : value;
}

template <typename T>
PYREG_INLINE typename Native<T>::vec absolute(typename Native<T>::vec x) {
  using mask = typename Native<T>::mask;
  constexpr auto kBits = static_cast<decltype(Constants<T>::kBias)>(sizeof(T) == 4 ? 0x7fffffff : 0x7fffffffffffffff);
  return (typename Native<T>::vec)((mask)x & kBits);
}

// Two values that are computed together.
template <typename T>
struct Pair {
  typename Native<T>::vec first, second;
};

// 1 / (1 + exp(-x)), and 1 minus it. Neither is computed from the other, so both stay accurate at both ends.
template <typename T>
PYREG_INLINE Pair<T> sigmoid(typename Native<T>::vec x) {
  const auto e = exp<T>(-absolute<T>(x));
  const auto inverse = T{1} / (e + T{1});
  const auto far = e * inverse;
  const auto below = x < T{0};
  return {below ? far : inverse, below ? inverse : far};
}

// The standard normal distribution function, (1 + erf(x / sqrt(2))) / 2, and the density times sqrt(2 pi).
//
// With a = |x|, the tail beyond a is exp(-a**2 / 2) * M(a), where M is Mills' ratio over sqrt(2 pi).
// (a + knot) * M(a) is computed as a polynomial in (a - knot) / (a + knot): Shepherd and Laframboise, "Chebyshev
// approximation of (1 + 2x) exp(x**2) erfc x in 0 <= x < infinity", Mathematics of Computation 36, 1981.
template <typename T>
PYREG_INLINE Pair<T> normal(typename Native<T>::vec x) {
  using vec = typename Native<T>::vec;
  using mask = typename Native<T>::mask;
  using F = Constants<T>;
  using Integer = decltype(F::kBias);
  vec a = absolute<T>(x);
  a = a > F::kFar ? vec{} + F::kFar : a;
  // a**2 / 2 in two parts, the first of them exact. If it were rounded, its relative error would become a**2 / 2
  // times as large in the exponential.
  const vec high = (vec)((mask)a & -(Integer{1} << F::kLowBits));
  const vec density = exp<T, true>((high * high) * T{-0.5}, ((a - high) * (a + high)) * T{-0.5});
  const vec inverse = T{1} / (a + F::kKnot);
  const vec y = (a - F::kKnot) * inverse;
  const vec tail = density * (polynomial(F::kMills, y) * inverse);
  return {x < T{0} ? tail : T{1} - tail, density};
}

// For the tests. x, y (n).
template <typename T>
void exponential(int64_t n, const T* x, T* y) {
  const auto body = [&](auto vector) PYREG_LAMBDA {
    vector.store(y, exp<T>(vector.load(x)));
  };
  int64_t at = 0;
  for (; at + Group<T>::kWidth <= n; at += Group<T>::kWidth) body(WholeVector<T>{at, 0, true});
  if (at < n) body(PartVector<T>{at, 0, static_cast<int>(n - at)});
}

}  // namespace
}  // namespace pyreg
