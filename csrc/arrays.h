// NumPy arrays in, checked typed views out: the only place that makes pointers of py::array.
//
// The Python layer checks arguments and words the errors. What is checked here again is what memory
// safety rests on, so that a mistake there ends in a TypeError and not in somebody's memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "float_environment.h"
#include "released_gil.h"

namespace pyreg {

namespace py = pybind11;
using OptionalArray = std::optional<py::array>;

inline void require(bool holds, const char* what) {
  if (!holds) throw py::type_error(what);
}

inline bool is_contiguous_and_aligned(const py::array& a) {
  constexpr int kFlags = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  return (a.flags() & kFlags) == kFlags;
}

// The elements of a C-contiguous array of T, to read.
template <typename T>
const T* in(const py::array& a, int64_t size) {
  require(py::isinstance<py::array_t<T>>(a), "_core: an array has another dtype");
  require(is_contiguous_and_aligned(a), "_core: an array is not C-contiguous and aligned");
  require(a.size() == size, "_core: an array has another size");
  return static_cast<const T*>(a.data());
}

template <typename T>
const T* in(const OptionalArray& a, int64_t size) {
  return a ? in<T>(*a, size) : nullptr;
}

// The same, to write.
template <typename T>
T* out(py::array& a, int64_t size) {
  require(a.writeable(), "_core: an array is read-only");
  return const_cast<T*>(in<T>(a, size));
}

template <typename T>
T* out(OptionalArray& a, int64_t size) {
  return a ? out<T>(*a, size) : nullptr;
}

// run(T{}) with the T, float or double, of the array's elements, in the default floating-point environment.
template <typename Run>
auto with_dtype(const py::array& a, Run run) {
  const DefaultFloatEnvironment environment;
  if (py::isinstance<py::array_t<float>>(a)) return run(float{});
  require(py::isinstance<py::array_t<double>>(a), "_core: an array is neither float32 nor float64");
  return run(double{});
}

}  // namespace pyreg
