// What pyreg/_check.py asks of arguments. Most calls have nothing to object to, and one question here tells so in a
// tenth of the time; where the answer is no, the checks there find the words.
#include <algorithm>
#include <optional>
#include <utility>

#include "arrays.h"
#include "ops/ops.h"

namespace pyreg {
namespace {

bool is_array(py::handle argument) { return Py_TYPE(argument.ptr()) == py::detail::npy_api::get().PyArray_Type_; }

py::array as_array(py::handle argument) { return py::reinterpret_borrow<py::array>(argument); }

// An ndarray, and no subclass, that a kernel for `dtype` can read as it is.
bool is_streamable(py::handle argument, const py::dtype& dtype) {
  if (!is_array(argument)) return false;
  const auto a = as_array(argument);
  return a.dtype().is(dtype) && is_contiguous_and_aligned(a);
}

bool is_floating(const py::dtype& dtype) {
  return dtype.is(py::dtype::of<float>()) || dtype.is(py::dtype::of<double>());
}

bool same_shape(const py::array& a, const py::array& b) {
  return a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape());
}

struct MemoryRange {
  const char *begin, *end;

  explicit MemoryRange(py::handle array) {
    const auto a = as_array(array);
    begin = static_cast<const char*>(a.data());
    end = begin + a.nbytes();
  }
  // Exact for contiguous arrays.
  bool overlaps(const MemoryRange& other) const { return begin < other.end && other.begin < end; }
  bool operator==(const MemoryRange&) const = default;
};

// (i, j) of the first two of the arrays (or Nones) that overlap, else None.
std::optional<std::pair<size_t, size_t>> first_overlap(const py::args& arrays) {
  for (size_t j = 1; j < arrays.size(); ++j) {
    if (arrays[j].is_none()) continue;
    const MemoryRange range(arrays[j]);
    for (size_t i = 0; i < j; ++i)
      if (!arrays[i].is_none() && range.overlaps(MemoryRange(arrays[i]))) return std::pair(i, j);
  }
  return std::nullopt;
}

// The offset of the first of the arrays (or Nones) that `out` overlaps, else None. It may be one of the first
// `may_be` from end to end.
std::optional<size_t> first_conflict(const py::array& out, const py::tuple& arrays, size_t may_be) {
  const MemoryRange range(out);
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (arrays[i].is_none()) continue;
    const MemoryRange other(arrays[i]);
    if (range.overlaps(other) && !(i < may_be && range == other)) return i;
  }
  return std::nullopt;
}

// Whether `first` and the others are all streamable and of one dtype. The first `required` of the others may not
// be None.
bool are_streamable(py::handle first, size_t required, const py::args& others) {
  if (!is_array(first)) return false;
  const py::dtype dtype = as_array(first).dtype();
  if (!is_floating(dtype) || !is_streamable(first, dtype)) return false;
  for (size_t i = 0; i < others.size(); ++i)
    if (!is_streamable(others[i], dtype) && !(i >= required && others[i].is_none())) return false;
  return true;
}

// Whether `out` can be written as it is: like the first of the arrays, and in no conflict with any.
bool is_good_out(py::handle out, const py::tuple& arrays, size_t may_be) {
  const py::array like = as_array(arrays[0]);
  return is_streamable(out, like.dtype()) && as_array(out).writeable() && same_shape(as_array(out), like) &&
         !first_conflict(as_array(out), arrays, may_be);
}

// Whether the others can be updated from `grad`: all streamable, of one dtype and shape and disjoint, and the others
// writeable. The first `required` of the others may not be None.
bool are_updatable(py::handle grad, size_t required, const py::args& others) {
  if (!are_streamable(grad, required, others)) return false;
  for (size_t i = 0; i < others.size(); ++i) {
    if (others[i].is_none()) continue;
    const py::array a = as_array(others[i]);
    if (!a.writeable() || !same_shape(a, as_array(grad))) return false;
    if (MemoryRange(a).overlaps(MemoryRange(grad))) return false;
  }
  return !first_overlap(others);
}

}  // namespace

void bind_arguments(py::module_& m) {
  m.def("first_overlap", first_overlap);
  m.def("first_conflict", first_conflict, py::arg("out"), py::arg("arrays"), py::arg("may_be"));
  m.def("are_streamable", are_streamable);
  m.def("is_good_out", is_good_out, py::arg("out"), py::arg("arrays"), py::arg("may_be"));
  m.def("are_updatable", are_updatable);
}

}  // namespace pyreg
