#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "parallel.h"

namespace pyreg {
namespace {

Reference update(Arguments& a) {
  const Array param = a.updated(), grad = a.array(), momentum_buffer = a.optional_updated(param);
  a.require_shape(grad, param);
  a.require_disjoint({param, grad, momentum_buffer});
  const int64_t step = a.integer(1);
  const double lr = a.number(), momentum = a.number(), dampening = a.number(), weight_decay = a.number();
  const bool nesterov = a.flag(), maximize = a.flag();
  a.require(momentum == 0 || momentum_buffer);
  a.require(!nesterov || (momentum != 0 && dampening == 0));
  if (!a.good()) return {};

  with_float_or_double(param, [&](auto zero) {
    using T = decltype(zero);
    const SgdScalars<T> scalars = {
        .grad_sign = static_cast<T>(maximize ? -1 : 1),
        .lr = static_cast<T>(lr),
        .momentum = static_cast<T>(momentum),
        .one_minus_dampening = static_cast<T>(1 - dampening),
        .decay = static_cast<T>(weight_decay),
        .nesterov = nesterov,
    };
    // At the first step the momentum buffer holds nothing yet.
    const Momentum use = momentum == 0 ? Momentum::none : step == 1 ? Momentum::first : Momentum::next;

    const ReleasedGil released;
    const auto kernel = kernels<T>().sgd;
    const int64_t bytes = (use == Momentum::none ? 3 : 5) * param.bytes;
    parallel_blocks(param.size, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, scalars, weight_decay != 0, use, param.as<T>() + begin, grad.as<T>() + begin,
             momentum_buffer.from<T>(begin));
    });
  });
  return none();
}

const Functions functions{named<update>("sgd_update")};

}  // namespace
}  // namespace pyreg
