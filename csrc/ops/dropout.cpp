#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "parallel.h"
#include "whole_mask.h"

namespace pyreg {
namespace {

Reference dropout(Arguments& a) {
  const Array x = a.array();
  const auto [threshold, key, offset] = a.dropout_in_training(x.size);
  const Array out = a.out({x});
  if (!a.good()) return {};

  Result y = result(out, x);
  with_dtype(x, [&, threshold = threshold, key = key, offset = offset](auto zero) {
    using S = decltype(zero);
    const ReleasedGil released;
    const auto kernel = kernels<S>().dropout;
    const bool nontemporal = outgrows_cache(2 * x.bytes) && !y.replaces({x});
    parallel_blocks(x.size, block_elements<S>(nontemporal), 2 * x.bytes, [&](int64_t begin, int64_t end) {
      kernel(end - begin, x.as<S>() + begin, threshold, key, offset + begin, y.as<S>() + begin, nontemporal);
    });
  });
  return std::move(y.reference);
}

Reference dropout_mask(Arguments& a) {
  Py_ssize_t lengths[kMaxAxes];
  PyObject* const shape = a.object();
  const bool is_tuple = PyTuple_CheckExact(shape);
  const Py_ssize_t axes = is_tuple ? PyTuple_GET_SIZE(shape) : 1;
  int64_t size = 1;
  for (Py_ssize_t axis = 0; axis < axes && axis < kMaxAxes; ++axis) {
    Arguments length(is_tuple ? &PyTuple_GET_ITEM(shape, axis) : &shape, 1);
    lengths[axis] = length.integer(0);
    a.require(length.good());
    if (__builtin_mul_overflow(size, lengths[axis], &size)) size = std::numeric_limits<int64_t>::max();
  }
  a.require(axes <= kMaxAxes && size < std::numeric_limits<int64_t>::max());
  const DropoutArguments dropout = a.dropout(size);
  if (!a.good()) return {};

  Result kept = new_array(Type::boolean, static_cast<int>(axes), lengths);
  {
    const ReleasedGil released;
    make_whole_mask(dropout, size, kept.as<uint8_t>());
  }
  return std::move(kept.reference);
}

const Functions functions{named<dropout>("dropout"), named<dropout_mask>("dropout_mask")};

}  // namespace
}  // namespace pyreg
