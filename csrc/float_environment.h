// The bits of a result must not depend on the caller's floating-point settings (rounding mode, flushing of subnormal
// numbers to zero). The caller's threads and the workers could have different ones.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pyreg {

// Sets IEEE's defaults for the thread that makes it, and restores the thread's settings when it is destroyed.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() : callers_(get()) { set(kDefault); }
  ~DefaultFloatEnvironment() { set(callers_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
#if defined(__x86_64__)
  using Register = unsigned;
  static constexpr Register kDefault = 0x1f80;  // exceptions masked, round to nearest, no flushing
  static Register get() { return _mm_getcsr(); }
  static void set(Register value) { _mm_setcsr(value); }
#elif defined(__aarch64__)
  using Register = uint64_t;
  static constexpr Register kDefault = 0;
  static Register get() {
    Register value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set(Register value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
  using Register = int;
  static constexpr Register kDefault = 0;
  static Register get() { return 0; }
  static void set(Register) {}
#endif
  Register callers_;
};

}  // namespace pyreg
