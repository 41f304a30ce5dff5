// An exact sum: a fixed-point number that is wide enough for every double (Kulisch's accumulator: U. Kulisch,
// "Computer Arithmetic and Validity", 2nd ed. 2013, chapter 8). So the order of addition does not matter.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace pyreg {

// A sum of numbers that are not negative: doubles times 2**shift, with a shift of at most kMostShift.
class ExactSum {
 public:
  static constexpr int kMostShift = 1040;

  void add(double x, int shift) {
    if (std::isinf(x) || std::isnan(x)) {
      special_ += x;
      return;
    }
    const auto bits = std::bit_cast<uint64_t>(x);
    const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
    const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
    const uint64_t significand = exponent == 0 ? fraction : fraction | uint64_t{1} << 52;
    const int place = (exponent == 0 ? 0 : exponent - 1) + shift;
    const uint64_t low = (significand & kMask) << place % 32, high = (significand >> 32) << place % 32;
    uint64_t* const digit = digits_ + place / 32;
    digit[0] += low & kMask;
    digit[1] += (low >> 32) + (high & kMask);
    digit[2] += high >> 32;
    if (++added_ % kBeforeCarries == 0) carry();
  }

  // The square root of the sum, which is rounded to a double times a power of 4 before.
  double square_root() {
    if (special_ != 0) return special_;  // infinite or NaN
    carry();
    int top = kDigits - 1;
    while (top >= 0 && digits_[top] == 0) --top;
    if (top < 0) return 0;
    // The sum's highest 64 bits, and whether any bit is left below them.
    const int length = 32 * top + std::bit_width(digits_[top]), lowest = length - 64;
    uint64_t bits = 0;
    for (int i = 63; i >= 0; --i) bits |= bit(lowest + i) << i;
    bool left = false;
    for (int place = 0; place < lowest && !left; ++place) left = bit(place) != 0;
    // To the nearest of 53 bits, ties to even.
    const uint64_t rest = bits & 0x7ff;
    bits >>= 11;
    bits += rest > 0x400 || (rest == 0x400 && (left || bits % 2 == 1));
    const int odd = lowest & 1;
    const double rounded = std::ldexp(static_cast<double>(bits), 11 + odd);
    return std::ldexp(std::sqrt(rounded), (lowest - odd - kUnit) / 2);
  }

 private:
  static constexpr int kUnit = 1074;  // the lowest digit counts units of 2**-kUnit
  // Holds 2**63 times the largest double times 2**kMostShift.
  static constexpr int kDigits = (kUnit + 1024 + kMostShift + 63) / 32 + 2;
  static constexpr uint64_t kMask = 0xffffffff;
  static constexpr int64_t kBeforeCarries = int64_t{1} << 30;  // additions that no digit overflows in

  uint64_t bit(int place) const { return place < 0 ? 0 : digits_[place / 32] >> place % 32 & 1; }

  // Makes all digits less than 2**32.
  void carry() {
    for (int i = 0; i + 1 < kDigits; ++i) {
      digits_[i + 1] += digits_[i] >> 32;
      digits_[i] &= kMask;
    }
  }

  uint64_t digits_[kDigits] = {};
  int64_t added_ = 0;
  double special_ = 0;  // the sum of what is not finite
};

}  // namespace pyreg
