// The kernels' exponential, for the tests.

#include "dispatch.h"
#include "functions.h"

namespace pyreg {
namespace {

Reference exponential(Arguments& a) {
  const Array x = a.array(), y = a.updated(x);
  if (!a.good()) return {};
  with_float_or_double(x, [&](auto zero) {
    using T = decltype(zero);
    kernels<T>().exponential(x.size, x.as<T>(), y.as<T>());
  });
  return none();
}

const Functions functions{named_plain<exponential>("exponential")};

}  // namespace
}  // namespace pyreg
