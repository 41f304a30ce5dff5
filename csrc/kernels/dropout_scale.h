// What dropout's threshold means. It knows no vectors, so csrc/ops may use it too.
#pragma once

#include <cstdint>

namespace pyreg {
namespace {

constexpr uint64_t kDropAll = uint64_t{1} << 32;

// The factor for kept elements. It makes the expected value exactly x. 1 if none is kept.
template <typename T>
T dropout_scale(uint64_t threshold) {
  if (threshold == kDropAll) return 1;
  return static_cast<T>(0x1p32 / static_cast<double>(kDropAll - threshold));
}

}  // namespace
}  // namespace pyreg
