// Reads and checks Python's arguments, and makes results: the only place that looks into NumPy's arrays.
//
// A function of csrc/ops reads its arguments one by one, in the order of the public function. An argument that the
// kernels cannot use is rejected without a message: pyreg/_check.py finds out why (functions.h).
//
// pybind11's numpy.h gives the layout of an array, so NumPy's headers are not needed.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/table.h"
#include "released_gil.h"

namespace pyreg {

namespace py = pybind11;

constexpr bool is_half(Type type) { return type == Type::float16 || type == Type::bfloat16; }
// The type in which the kernels compute with elements of a floating type.
constexpr Type compute_type(Type type) { return is_half(type) ? Type::float32 : type; }

// The elements of an array; data is null if there is no array.
struct Elements {
  void* data = nullptr;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // A pointer to element `at`, or null if there is no array.
  template <typename T>
  T* from(int64_t at) const {
    return data ? as<T>() + at : nullptr;
  }
};

// An array argument: C-contiguous unless it comes from `dense_of`, aligned, in native byte order. Empty if the
// argument is None or is rejected.
struct Array : Elements {
  PyObject* object = nullptr;
  int axes = 0;
  const Py_ssize_t *shape = nullptr, *strides = nullptr;
  bool in_order = false;  // whether it is C-contiguous
  int64_t size = 0, bytes = 0;
  Type type = Type::none;
  PyObject* descr = nullptr;  // NumPy's dtype

  explicit operator bool() const { return object != nullptr; }
  // Whether it holds floats beside other arrays of 16 bits.
  bool is_wide(Type others) const { return is_half(others) && type == Type::float32; }
};

// An array seen as consecutive rows of n elements.
struct Rows {
  int64_t count = 0, n = 0;
  int axes = 0;  // how many of the array's last axes make a row

  // The elements of a row that is read with each of them: none if there are no rows.
  int64_t read() const { return count == 0 ? 0 : n; }
};

struct DropoutArguments {
  uint64_t threshold, key, offset;
};

// An owned reference to a result. It may live while the GIL is released. If the interpreter shuts down then, the
// thread ends by unwinding its stack, without the GIL, and the object is left alone.
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

// A result array; empty if it is not wanted.
struct Result : Elements {
  Reference reference;

  // Whether it is written over one of the inputs.
  bool replaces(std::initializer_list<Array> inputs) const {
    for (const Array& input : inputs)
      if (data && data == input.data) return true;
    return false;
  }
};

class Arguments {
 public:
  // No Python code runs while the arguments are read: it could change arrays that are already checked. checked:
  // pyreg/_check.py has excluded masked arrays, so other subclasses of ndarray can be written to.
  Arguments(PyObject* const* arguments, Py_ssize_t count, bool checked = false)
      : next_(arguments), end_(arguments + count), checked_(checked) {}

  // Whether all arguments were read and none was rejected.
  bool good() const { return good_ && next_ == end_; }
  bool good_so_far() const { return good_; }
  void require(bool holds) { good_ &= holds; }

  // An array to read. The first one gives the type that the others must have.
  Array array();
  Array array(Type type);
  Array optional_array() { return optional_array(type_); }
  Array optional_array(Type type) { return optional_array(type, type); }
  Array optional_array(Type type, Type other);
  // A statistic of the rows, in the compute type.
  Array statistic() { return array(compute_type(type_)); }
  Array optional_statistic() { return optional_array(compute_type(type_)); }
  // A parameter, or another array whose type is that of the others or the compute type.
  Array parameter() { return array_of(object(), type_, compute_type(type_)); }
  Array optional_parameter() { return optional_array(type_, compute_type(type_)); }
  // Skips an argument; the result is empty.
  Array ignored() {
    object();
    return {};
  }
  // An array to write to, not of 16 bits: with the shape of `like`, or one that sets the type of the others.
  Array updated(const Array& like = {});
  // An array to write a result to, or None. It has the shape of the first of `replaces`, and its type if none is
  // given. It may be exactly one of `replaces`, and must not overlap any other array of the two lists.
  Array out(std::initializer_list<Array> replaces, std::initializer_list<Array> avoids = {}) {
    return out(replaces, avoids, replaces.begin()->type, replaces.begin()->type);
  }
  Array out(std::initializer_list<Array> replaces, std::initializer_list<Array> avoids, Type type, Type other);

  void require_shape(const Array& array, int axes, const Py_ssize_t* shape) {
    require(!array || has_shape(array, axes, shape));
  }
  void require_shape(const Array& array, const Array& like) { require_shape(array, like.axes, like.shape); }

  // x as rows. The argument is the shape of a row. If it is None, the first of `params` that is given has that shape;
  // without params, a row is the last axis. The params must have the shape of a row.
  Rows normalized_rows(const Array& x, std::initializer_list<Array> params);
  // x as rows, with one element of `statistic` for each. The params must have the shape of a row.
  Rows rows_of(const Array& x, const Array& statistic, std::initializer_list<Array> params);

  double number(double low = 0, double below = std::numeric_limits<double>::infinity());
  double finite(Type type);
  uint64_t natural();  // below 2**64
  int64_t integer(int64_t low, int64_t high = std::numeric_limits<int64_t>::max());
  bool flag();
  // An axis of x, counted from the first.
  int axis_of(const Array& x);
  std::pair<double, double> betas();
  std::string_view text();
  PyObject* object();

  // p, the key and the offset, for `size` elements; in a forward pass also `training`. Without a mask, the key may be
  // None whatever p is.
  DropoutArguments dropout(uint64_t size);
  DropoutArguments dropout_in_training(uint64_t size);
  DropoutArguments dropout_without_mask(uint64_t size);

  // `object` as an array; rejected unless the kernels can read it.
  Array array_of(PyObject* object, Type type) { return array_of(object, type, type); }
  Array array_of(PyObject* object, Type type, Type other);
  // `object` as an array of floats whose elements fill a piece of memory, in the order of its axes or of others;
  // rejected unless the kernels can read it, or, if `written`, write to it.
  Array dense_of(PyObject* object, bool written);
  static bool is_array(PyObject* object);
  // Subclasses of ndarray may be written too: a check has excluded masked arrays.
  void accept_subclasses() { checked_ = true; }
  // Adds the layout of an array that is written in place: its number of axes, then its shape and strides.
  static void add_layout(PyObject* array, std::vector<Py_ssize_t>& layouts);
  // Whether it still has these elements in this layout, and may still be written. `layout` moves on to the next one.
  static bool is_as_it_was(PyObject* array, const Stored& elements, const Py_ssize_t*& layout);
  // The elements of a 1-D array of int64.
  std::vector<int64_t> indices_of(PyObject* object);
  // `object` as an array to read, of floats, with the shape and layout of `like`, which is an array of floats itself.
  // Empty if it is none.
  static Array dense_like(PyObject* object, PyObject* like);
  // An array, or all arrays of a list, each of a floating type. Those of a list live as long as `list`.
  std::vector<Array> arrays(Reference& list);

 private:
  static bool has_shape(const Array& array, int axes, const Py_ssize_t* shape);
  bool is_writable(PyObject* object) const;
  Array writable_of(PyObject* object, Type type, Type other);
  DropoutArguments dropout(uint64_t size, bool has_training, bool has_mask);
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

// Whether two dense arrays have the same shape, and every element the same place in memory, counted in elements.
bool same_layout(const Array& a, const Array& b);
// The items of a list or a tuple; empty if the object is neither. A copy of a list keeps its items alive if another
// thread changes the list.
Reference items_of(PyObject* object);

// Python's None, for a function that has no result.
Reference none();
// A new array.
Result new_array(Type type, int axes, const Py_ssize_t* shape);
// A new 1-D array of int64.
Result new_indices(Py_ssize_t count);
// The array given for a result, or a new one like `like`.
Result result(const Array& given, const Array& like);
Result result_if(bool wanted, const Array& given, const Array& like);
// The same, but a new one is of this type: that of `like`, or float32.
Result result_if(bool wanted, const Array& given, const Array& like, Type type);
// A new array for the gradient of a parameter; empty if there is no parameter.
Result gradient_of(const Array& param);
// A new array for a statistic of each row.
Result statistic(Type type, const Array& x, const Rows& rows);

// A class of pyreg/_results.py. Define it at namespace scope; the class is looked up when the module is imported.
class NamedTuple {
 public:
  explicit NamedTuple(const char* name);
  // A tuple of the results, with None for an empty one.
  Reference of(std::initializer_list<Result*> results) const;

  static void find_all();

 private:
  const char* name_;
  PyTypeObject* type_ = nullptr;
  NamedTuple* next_;
};

// run(T{}), where T is the type of the array's elements: float or double.
template <typename Run>
auto with_float_or_double(const Array& array, Run run) {
  return array.type == Type::float32 ? run(float{}) : run(double{});
}

// run(S{}), where S is the type of the array's elements.
template <typename Run>
auto with_dtype(const Array& array, Run run) {
  switch (array.type) {
    case Type::float16:
      return run(float16{});
    case Type::bfloat16:
      return run(bfloat16{});
    default:
      return with_float_or_double(array, run);
  }
}

}  // namespace pyreg
