#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace pyreg {

// PYREG_LEVELS is X(v2) X(v3) ...: the levels that CMakeLists.txt compiles, lowest first.
#define X(level)                             \
  extern const Kernels<float> f32_##level;   \
  extern const Kernels<double> f64_##level;  \
  extern const Kernels<float16> f16_##level; \
  extern const Kernels<bfloat16> bf16_##level;
PYREG_LEVELS
#undef X

namespace {

struct Level {
  const char* name;
  bool (*supported)();
  const Kernels<float>& f32;
  const Kernels<double>& f64;
  const Kernels<float16>& f16;
  const Kernels<bfloat16>& bf16;
};

#if defined(__x86_64__)
// By features: gcc 11 does not know the levels' names here. Features left out always come with those checked.
bool cpu_has_v2() {
  return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
}
bool cpu_has_v3() {
  return cpu_has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool cpu_has_v4() {
  return cpu_has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#else
bool cpu_has_baseline() { return true; }
#endif

const Level levels[] = {
#define X(level) {#level, cpu_has_##level, f32_##level, f64_##level, f16_##level, bf16_##level},
    PYREG_LEVELS
#undef X
};

std::atomic<const Level*> chosen{nullptr};

std::string join(const std::vector<std::string>& names) {
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return chosen.load(std::memory_order_relaxed)->f32;
}
template <>
const Kernels<double>& kernels<double>() {
  return chosen.load(std::memory_order_relaxed)->f64;
}
template <>
const Kernels<float16>& kernels<float16>() {
  return chosen.load(std::memory_order_relaxed)->f16;
}
template <>
const Kernels<bfloat16>& kernels<bfloat16>() {
  return chosen.load(std::memory_order_relaxed)->bf16;
}

std::vector<std::string> isa_built() {
  std::vector<std::string> names;
  for (const Level& level : levels) names.push_back(level.name);
  return names;
}

std::vector<std::string> isa_found() {
  std::vector<std::string> names;
  for (const Level& level : levels)
    if (level.supported()) names.push_back(level.name);
  return names;
}

std::string isa_chosen() { return chosen.load()->name; }

void use_isa(const std::string& name) {
  const std::string wanted = name == "baseline" ? levels[0].name : name;
  for (const Level& level : levels) {
    if (wanted != level.name) continue;
    if (!level.supported())
      throw std::invalid_argument("instruction-set level '" + name + "': this processor lacks it; it has " +
                                  join(isa_found()));
    chosen = &level;
    return;
  }
  throw std::invalid_argument("instruction-set level '" + name + "' is unknown; built: " + join(isa_built()) +
                              " ('baseline' is the lowest)");
}

void choose_isa() {
  const std::vector<std::string> found = isa_found();
  if (found.empty())
    throw std::invalid_argument("this processor has none of the instruction-set levels built: " + join(isa_built()));
  const char* cap = std::getenv("PYREG_ISA");
  if (cap == nullptr || *cap == 0) return use_isa(found.back());
  try {
    use_isa(cap);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("PYREG_ISA: ") + error.what());
  }
}

}  // namespace pyreg
