#include <vector>

#include "dispatch.h"
#include "functions.h"
#include "parallel.h"

namespace pyreg {
namespace {

// Elements per partial sum; the partial sums are added in order. The result depends on this number.
constexpr int64_t kBlock = 16 * 1024;

double summed(const Array& x) {
  return with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    const ReleasedGil released;
    const auto kernel = kernels<S>().l2_penalty;
    std::vector<double> sums(blocks_of(x.size, kBlock));
    parallel_blocks(x.size, kBlock, x.bytes, [&](int64_t begin, int64_t end) {
      sums[begin / kBlock] = kernel(end - begin, x.as<S>() + begin);
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  });
}

// The penalty of an array, or of all arrays of a list.
Reference l2_penalty(Arguments& a) {
  PyObject* params = a.object();
  const double weight_decay = a.number();
  // A copy of a list keeps its arrays alive if another thread changes the list.
  const Reference listed(PyList_CheckExact(params) ? PyList_AsTuple(params) : nullptr);
  if (!listed && PyErr_Occurred()) throw py::error_already_set();
  std::vector<Array> arrays;
  for (Py_ssize_t i = 0, count = listed ? PyTuple_GET_SIZE(listed.get()) : 1; i < count; ++i)
    arrays.push_back(a.array_of(listed ? PyTuple_GET_ITEM(listed.get(), i) : params, Type::none));
  if (!a.good()) return {};

  double total = 0;
  for (const Array& array : arrays) total += summed(array);
  return Reference(PyFloat_FromDouble(weight_decay / 2 * total + 0.0));  // + 0.0: no -0 for a decay of -0
}

const Functions functions{named<l2_penalty>("l2_penalty")};

}  // namespace
}  // namespace pyreg
