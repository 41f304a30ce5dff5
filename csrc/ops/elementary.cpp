// The exponential that the kernels use, for the tests.

#include "dispatch.h"
#include "ops/ops.h"

namespace pyreg {
namespace {

void exponential(const py::array& x_array, py::array y_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    kernels<T>().exponential(size, in<T>(x_array, size), out<T>(y_array, size));
  });
}

}  // namespace

void bind_elementary(py::module_& m) { m.def("exponential", exponential, py::arg("x"), py::arg("y")); }

}  // namespace pyreg
