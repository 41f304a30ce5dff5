#include "functions.h"
#include "model.h"

namespace pyreg {
namespace {

Reference update(Arguments& a) {
  Model model;
  for (const Role role : {kParam, kGrad}) model.take(a, role);
  model.take_optional(a, kMomentumBuffer);
  const int64_t step = a.integer(1);
  const double lr = a.number(), momentum = a.number(), dampening = a.number(), weight_decay = a.number();
  const bool nesterov = a.flag(), maximize = a.flag();
  const UpdateOptions options = model.take_options(
      a, maximize,
      {{"param", kParam}, {"momentum_buffer", kMomentumBuffer}, {"ema", kEma}, {"param_out", kParamOut}});
  a.require(!nesterov || (momentum != 0 && dampening == 0));
  model.read(a, options);
  a.require(momentum == 0 || model.has(kMomentumBuffer));
  if (!a.good()) return {};

  const auto scalars = [&](auto zero) {
    using T = decltype(zero);
    return SgdScalars<T>{
        .common = options.scalars<T>(),
        .lr = static_cast<T>(lr),
        // At the first step the momentum buffer holds nothing yet.
        .momentum_kind = momentum == 0 ? Momentum::none
                         : step == 1   ? Momentum::first
                                       : Momentum::next,
        .momentum = static_cast<T>(momentum),
        .one_minus_dampening = static_cast<T>(1 - dampening),
        .nesterov = nesterov,
        .decay_kind = weight_decay == 0 ? Decay::none : Decay::coupled,
        .decay = static_cast<T>(weight_decay),
    };
  };
  return model.update(options, scalars, [](const auto& kernels) { return kernels.sgd; });
}

const Functions functions{named<update>("sgd_update")};

}  // namespace
}  // namespace pyreg
