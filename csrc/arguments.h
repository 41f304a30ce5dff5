// Python's arguments in, checked and typed, and results out: the only place that looks into NumPy's arrays.
//
// A function of csrc/ops takes its arguments one after the other, in the order of the public function. One that the
// kernels cannot use is refused without a message: pyreg/_check.py finds out why (functions.h).
//
// What NumPy's arrays look like is taken from pybind11's numpy.h, which reads it without NumPy's headers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <utility>

#include "released_gil.h"

namespace pyreg {

namespace py = pybind11;

enum class Type { none, float32, float64, boolean };

// The elements of an array; null where there is none.
struct Elements {
  void* data = nullptr;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // From element `at` on.
  template <typename T>
  T* from(int64_t at) const {
    return data ? as<T>() + at : nullptr;
  }
};

// An argument that is an array: C-contiguous, aligned, in native byte order. Of None, and of what is refused: no
// data.
struct Array : Elements {
  PyObject* object = nullptr;
  int axes = 0;
  const Py_ssize_t* shape = nullptr;
  int64_t size = 0, bytes = 0;
  Type type = Type::none;

  explicit operator bool() const { return object != nullptr; }
};

// An array as rows of n, one behind the other.
struct Rows {
  int64_t count = 0, n = 0;
  int axes = 0;  // of the array, how many make a row: its last ones
};

struct DropoutArguments {
  uint64_t threshold, key, offset;
};

// A reference to what a function returns. It may live while the GIL is released, where a thread of an interpreter
// that is shutting down ends by unwinding its stack: then it is left alone.
class Reference {
 public:
  Reference() = default;
  explicit Reference(PyObject* owned) : object_(owned) {}
  Reference(Reference&& other) noexcept : object_(other.release()) {}
  Reference& operator=(Reference&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Reference() {
    if (object_ && !ReleasedGil::released) Py_DECREF(object_);
  }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// A result that is an array; of what is not wanted, none.
struct Result : Elements {
  Reference reference;

  // Whether it is written over one of these.
  bool replaces(std::initializer_list<Array> inputs) const {
    for (const Array& input : inputs)
      if (data && data == input.data) return true;
    return false;
  }
};

class Arguments {
 public:
  // No Python code runs while they are taken: it could change arrays that have been looked at. checked: what is taken
  // for an array by its type is no masked array.
  Arguments(PyObject* const* arguments, Py_ssize_t count, bool checked = false)
      : next_(arguments), end_(arguments + count), checked_(checked) {}

  // Whether nothing was refused, and all of them were taken.
  bool good() const { return good_ && next_ == end_; }
  bool good_so_far() const { return good_; }
  void require(bool holds) { good_ &= holds; }

  // An array to read. The first one gives the type that the others have to have.
  Array array();
  Array array(Type type);
  Array optional_array();
  // None, whatever it is.
  Array ignored() {
    object();
    return {};
  }
  // An array to update in place: like the first of them.
  Array updated(const Array& like = {});
  Array optional_updated(const Array& like);
  void require_disjoint(std::initializer_list<Array> arrays);
  // An array to write a result to, or None. It may be one of those that it `replaces`, the first of which it is like,
  // from end to end, and overlaps none of the others.
  Array out(std::initializer_list<Array> replaces, std::initializer_list<Array> avoids = {});

  void require_shape(const Array& array, int axes, const Py_ssize_t* shape) {
    require(!array || has_shape(array, axes, shape));
  }
  void require_shape(const Array& array, const Array& like) { require_shape(array, like.axes, like.shape); }

  // x as rows, of the normalised shape or, where this is None, of the first of `params` that is there, or the last
  // axis. The params have the shape of a row.
  Rows normalized_rows(const Array& x, std::initializer_list<Array> params);
  // x as rows, of which each has a statistic. The params have the shape of a row.
  Rows rows_of(const Array& x, const Array& statistic, std::initializer_list<Array> params);

  double number(double low = 0, double below = std::numeric_limits<double>::infinity());
  double finite(Type type);
  int64_t integer(int64_t low, int64_t high = std::numeric_limits<int64_t>::max());
  bool flag();
  std::pair<double, double> betas();
  const char* text();
  PyObject* object();

  // p, the key and the offset, for `size` elements; in a forward pass `training` too.
  DropoutArguments dropout(uint64_t size);
  DropoutArguments dropout_in_training(uint64_t size);

  // `object` as an array; refused where it is none that the kernels can read.
  Array array_of(PyObject* object, Type type);

 private:
  static bool has_shape(const Array& array, int axes, const Py_ssize_t* shape);
  Array writable_of(PyObject* object, Type type);
  Array updated_of(PyObject* object, const Array& like);
  DropoutArguments dropout(uint64_t size, bool has_training);
  template <typename Value>
  Value refused(Value value) {
    good_ = false;
    return value;
  }

  PyObject* const* next_;
  PyObject* const* end_;
  Type type_ = Type::none;
  bool checked_, good_ = true;
};

// What a function returns that has no result.
Reference none();
// A new array.
Result new_array(Type type, int axes, const Py_ssize_t* shape);
// What is given for a result, or a new array.
Result result(const Array& given, const Array& like);
Result result_if(bool wanted, const Array& given, const Array& like);
// A new array for the gradient of a parameter, where there is one.
Result gradient_of(const Array& param);
// A new array for a statistic of each row.
Result statistic(Type type, const Array& x, const Rows& rows);

// A class of pyreg/_results.py. Define it at namespace scope: it is found when the module is imported.
class NamedTuple {
 public:
  explicit NamedTuple(const char* name);
  // Of the results: None for one that there is not.
  Reference of(std::initializer_list<Result*> results) const;

  static void find_all();

 private:
  const char* name_;
  PyTypeObject* type_ = nullptr;
  NamedTuple* next_;
};

// run(T{}) with the T, float or double, of the array's elements.
template <typename Run>
auto with_dtype(const Array& array, Run run) {
  return array.type == Type::float32 ? run(float{}) : run(double{});
}

}  // namespace pyreg
