// Loops that show what the machine can do, for the benchmark to compare with.

#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "parallel.h"

namespace pyreg {
namespace {

Reference copy(Arguments& a) {
  const Array source = a.array(), target = a.updated(source);
  const bool nontemporal = a.flag();
  if (!a.good()) return {};

  with_float_or_double(source, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const auto kernel = kernels<T>().copy;
    parallel_blocks(source.size, block_elements<T>(nontemporal), 2 * source.bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, source.as<T>() + begin, target.as<T>() + begin, nontemporal);
    });
  });
  return none();
}

Reference update_loop(Arguments& a) {
  const Array param = a.updated(), grad = a.array(), exp_avg = a.updated(param), exp_avg_sq = a.updated(param);
  a.require_shape(grad, param);
  if (!a.good()) return {};

  with_float_or_double(param, [&](auto zero) {
    using T = decltype(zero);
    const ReleasedGil released;
    const auto kernel = kernels<T>().update_loop;
    const int64_t bytes = 7 * param.bytes;
    parallel_blocks(param.size, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, param.as<T>() + begin, grad.as<T>() + begin, exp_avg.as<T>() + begin,
             exp_avg_sq.as<T>() + begin);
    });
  });
  return none();
}

const Functions functions{named_plain<copy>("copy"), named_plain<update_loop>("update_loop")};

}  // namespace
}  // namespace pyreg
