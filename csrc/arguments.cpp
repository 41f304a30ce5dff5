#include "arguments.h"

#include <algorithm>
#include <cmath>

#include "result_memory.h"

namespace pyreg {
namespace {

using py::detail::npy_api;

constexpr int kInOrder = npy_api::NPY_ARRAY_C_CONTIGUOUS_, kAligned = npy_api::NPY_ARRAY_ALIGNED_;
constexpr int kReadable = kInOrder | kAligned;
constexpr int kFloat16Number = 23;  // NPY_HALF, which npy_api has not
constexpr int kWritable = npy_api::NPY_ARRAY_WRITEABLE_;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
constexpr char kSwapped = '>';
#else
constexpr char kSwapped = '<';
#endif

bool is_ndarray(PyObject* object) { return Py_TYPE(object) == npy_api::get().PyArray_Type_; }

// bfloat16 is not one of NumPy's own types. The package ml_dtypes registers it, under a number that differs from
// process to process. Its newer versions put their name into the type's. pyreg/_dtypes.py has the same rule.
bool is_bfloat16(const py::detail::PyArrayDescr_Proxy& descr) {
  constexpr int kFirstRegistered = 256;
  if (descr.type_num < kFirstRegistered) return false;
  const auto* const type = reinterpret_cast<const PyTypeObject*>(descr.typeobj);
  const std::string_view name = type->tp_name;
  if (name != "bfloat16") return name == "ml_dtypes.bfloat16";
  PyObject* const module_name = PyDict_GetItemString(type->tp_dict, "__module__");
  return module_name && PyUnicode_Check(module_name) &&
         PyUnicode_CompareWithASCIIString(module_name, "ml_dtypes") == 0;
}

Type type_of(const py::detail::PyArray_Proxy& array) {
  const auto* descr = reinterpret_cast<const py::detail::PyArrayDescr_Proxy*>(array.descr);
  if (descr->byteorder == kSwapped) return Type::none;
  switch (descr->type_num) {
    case npy_api::NPY_FLOAT_:
      return Type::float32;
    case npy_api::NPY_DOUBLE_:
      return Type::float64;
    case kFloat16Number:
      return Type::float16;
    case npy_api::NPY_BOOL_:
      return Type::boolean;
    default:
      return is_bfloat16(*descr) ? Type::bfloat16 : Type::none;
  }
}

// An ndarray, or a subclass of it; empty if it has neither type or lacks one of the flags. type: none for any
// floating type.
Array checked_array(PyObject* object, Type type, Type other, int flags) {
  const auto& proxy = *py::detail::array_proxy(object);
  const Type own = type_of(proxy);
  const bool fits = type == Type::none ? own != Type::none && own != Type::boolean : own == type || own == other;
  if ((proxy.flags & flags) != flags || !fits) return {};
  int64_t size = 1;
  for (int axis = 0; axis < proxy.nd; ++axis) size *= proxy.dimensions[axis];
  return {{proxy.data},  object,
          proxy.nd,      proxy.dimensions,
          proxy.strides, (proxy.flags & kInOrder) != 0,
          size,          size * bytes_of(own),
          own,           reinterpret_cast<PyObject*>(proxy.descr)};
}

// Whether the elements fill a piece of memory that begins with the first: in some order of the axes, each stride is
// that of the axis after it times this one's length.
bool is_dense(const Array& array) {
  if (array.in_order || array.size == 0) return true;
  uint64_t left = 0;  // the axes not yet found, of those longer than 1
  for (int axis = 0; axis < array.axes; ++axis) left |= uint64_t{array.shape[axis] > 1} << axis;
  for (Py_ssize_t stride = bytes_of(array.type); left != 0;) {
    int axis = 0;
    while (axis < array.axes && !((left >> axis & 1) && array.strides[axis] == stride)) ++axis;
    if (axis == array.axes) return false;
    left &= ~(uint64_t{1} << axis);
    stride *= array.shape[axis];
  }
  return true;
}

// Exact, because the arrays are contiguous.
bool overlap(const Array& a, const Array& b) {
  const auto *begin = a.as<const char>(), *other = b.as<const char>();
  return a.bytes > 0 && b.bytes > 0 && begin < other + b.bytes && other < begin + a.bytes;
}

int64_t product(const Py_ssize_t* begin, const Py_ssize_t* end) {
  int64_t result = 1;
  for (; begin != end; ++begin) result *= *begin;
  return result;
}

Rows rows_of_axes(const Array& x, int axes) {
  const Py_ssize_t *const row = x.shape + (x.axes - axes), *const end = x.shape + x.axes;
  return {.count = product(x.shape, row), .n = product(row, end), .axes = axes};
}

// The value of a float, or of an int that is not a bool; NaN for anything else.
double as_double(PyObject* object) {
  if (PyFloat_Check(object)) return PyFloat_AS_DOUBLE(object);
  if (PyLong_CheckExact(object)) {
    const double value = PyLong_AsDouble(object);
    if (value != -1 || !PyErr_Occurred()) return value;
    PyErr_Clear();
  }
  return std::numeric_limits<double>::quiet_NaN();
}

// The value of an int that fits in 64 unsigned bits; false for anything else.
bool as_uint64(PyObject* object, uint64_t& value) {
  if (!PyLong_CheckExact(object)) return false;
  value = PyLong_AsUnsignedLongLong(object);
  if (value != ~uint64_t{0} || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

// round(p * 2**32), ties to even. Every step is exact, so the caller's rounding mode does not matter.
uint64_t threshold_of(double p) {
  const double scaled = p * 0x1p32;
  const auto whole = static_cast<uint64_t>(scaled);
  const double rest = scaled - static_cast<double>(whole);
  return whole + (rest > 0.5 || (rest == 0.5 && whole % 2 == 1));
}

NamedTuple* named_tuples = nullptr;

}  // namespace

Array Arguments::array_of(PyObject* object, Type type, Type other) {
  const Array result = is_ndarray(object) ? checked_array(object, type, other, kReadable) : Array{};
  require(static_cast<bool>(result));
  return result;
}

bool Arguments::is_writable(PyObject* object) const {
  return is_ndarray(object) || (checked_ && PyObject_TypeCheck(object, npy_api::get().PyArray_Type_));
}

Array Arguments::writable_of(PyObject* object, Type type, Type other) {
  const Array result = is_writable(object) ? checked_array(object, type, other, kReadable | kWritable) : Array{};
  require(static_cast<bool>(result));
  return result;
}

Array Arguments::dense_of(PyObject* object, bool written) {
  const bool usable = written ? is_writable(object) : is_ndarray(object);
  const int flags = written ? kAligned | kWritable : kAligned;
  const Array result = usable ? checked_array(object, Type::none, Type::none, flags) : Array{};
  require(result && is_dense(result));
  return result;
}

bool Arguments::is_array(PyObject* object) { return is_ndarray(object); }

void Arguments::add_layout(PyObject* array, std::vector<Py_ssize_t>& layouts) {
  const auto& proxy = *py::detail::array_proxy(array);
  layouts.push_back(proxy.nd);
  layouts.insert(layouts.end(), proxy.dimensions, proxy.dimensions + proxy.nd);
  layouts.insert(layouts.end(), proxy.strides, proxy.strides + proxy.nd);
}

bool Arguments::is_as_it_was(PyObject* array, const Stored& elements, const Py_ssize_t*& layout) {
  const auto& proxy = *py::detail::array_proxy(array);
  if (proxy.data != elements.data || (proxy.flags & kWritable) == 0 || type_of(proxy) != elements.type ||
      proxy.nd != *layout++)
    return false;
  for (const Py_ssize_t* numbers : {proxy.dimensions, proxy.strides})
    for (int axis = 0; axis < proxy.nd; ++axis)
      if (numbers[axis] != *layout++) return false;
  return true;
}

std::vector<int64_t> Arguments::indices_of(PyObject* object) {
  if (!is_ndarray(object)) return refused(std::vector<int64_t>());
  const auto& proxy = *py::detail::array_proxy(object);
  const auto* descr = reinterpret_cast<const py::detail::PyArrayDescr_Proxy*>(proxy.descr);
  const bool is_int64 = (descr->type_num == npy_api::NPY_LONG_ && sizeof(long) == sizeof(int64_t)) ||
                        descr->type_num == npy_api::NPY_LONGLONG_;
  if (!is_int64 || descr->byteorder == kSwapped || proxy.nd != 1 || (proxy.flags & kReadable) != kReadable)
    return refused(std::vector<int64_t>());
  const auto* const first = static_cast<const int64_t*>(static_cast<const void*>(proxy.data));
  return {first, first + proxy.dimensions[0]};
}

Array Arguments::dense_like(PyObject* object, PyObject* like) {
  if (!is_ndarray(object)) return {};
  const auto &proxy = *py::detail::array_proxy(object), &model = *py::detail::array_proxy(like);
  if ((proxy.flags & model.flags & kReadable) == kReadable) {  // usually
    const Type type = type_of(proxy);
    bool same = proxy.nd == model.nd;
    Array array = {{proxy.data}, object, proxy.nd, proxy.dimensions, proxy.strides, true, 1};
    for (int axis = 0; same && axis < proxy.nd; array.size *= proxy.dimensions[axis++])
      same = proxy.dimensions[axis] == model.dimensions[axis];
    array.type = type;
    return same && type != Type::none && type != Type::boolean ? array : Array{};
  }
  const Array array = checked_array(object, Type::none, Type::none, kAligned);
  const Array other = checked_array(like, Type::none, Type::none, kAligned);
  return array && other && is_dense(array) && is_dense(other) && same_layout(array, other) ? array : Array{};
}

std::vector<Array> Arguments::arrays(Reference& list) {
  PyObject* const argument = object();
  list = items_of(argument);
  if (!list) return {array_of(argument, Type::none)};
  std::vector<Array> result;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(list.get()); ++i)
    result.push_back(array_of(PyTuple_GET_ITEM(list.get(), i), Type::none));
  return result;
}

PyObject* Arguments::object() { return next_ < end_ ? *next_++ : refused(Py_None); }

Array Arguments::array() {
  const Array result = array_of(object(), type_);
  if (type_ == Type::none) type_ = result.type;
  return result;
}

Array Arguments::array(Type type) { return array_of(object(), type); }

Array Arguments::optional_array(Type type, Type other) {
  PyObject* const argument = object();
  return argument == Py_None ? Array{} : array_of(argument, type, other);
}

Array Arguments::updated(const Array& like) {
  const Array result = writable_of(object(), type_, type_);
  require(!is_half(result.type));
  if (like)
    require_shape(result, like);
  else
    type_ = result.type;
  return result;
}

Array Arguments::out(std::initializer_list<Array> replaces, std::initializer_list<Array> avoids, Type type,
                     Type other) {
  PyObject* const argument = object();
  if (argument == Py_None) return {};
  const Array& like = *replaces.begin();
  const Array result = writable_of(argument, type, other);
  require(has_shape(result, like.axes, like.shape));
  for (const Array& array : replaces) {
    const bool same = array.data == result.data && array.bytes == result.bytes;
    require(same || !overlap(result, array));
  }
  for (const Array& array : avoids) require(!overlap(result, array));
  return result;
}

bool Arguments::has_shape(const Array& array, int axes, const Py_ssize_t* shape) {
  return array.axes == axes && std::equal(shape, shape + axes, array.shape);
}

Rows Arguments::normalized_rows(const Array& x, std::initializer_list<Array> params) {
  PyObject* const shape = object();
  Py_ssize_t axes = 1;
  if (shape == Py_None) {
    for (const Array& param : params)
      if (param) {
        axes = param.axes;
        break;
      }
  } else if (PyTuple_CheckExact(shape)) {
    axes = PyTuple_GET_SIZE(shape);
  } else if (!PyLong_CheckExact(shape)) {
    return refused(Rows{});
  }
  if (!x || axes < 1 || axes > x.axes) return refused(Rows{});
  const Py_ssize_t* const row = x.shape + (x.axes - axes);
  for (Py_ssize_t axis = 0; axis < axes && shape != Py_None; ++axis) {
    uint64_t length = 0;
    PyObject* const item = PyTuple_CheckExact(shape) ? PyTuple_GET_ITEM(shape, axis) : shape;
    require(as_uint64(item, length) && length == static_cast<uint64_t>(row[axis]));
  }
  for (const Array& param : params) require_shape(param, static_cast<int>(axes), row);
  return rows_of_axes(x, static_cast<int>(axes));
}

Rows Arguments::rows_of(const Array& x, const Array& statistic, std::initializer_list<Array> params) {
  const int axes = x.axes - statistic.axes;
  if (!x || !statistic || axes < 1) return refused(Rows{});
  require(has_shape(statistic, statistic.axes, x.shape));
  for (const Array& param : params) require_shape(param, axes, x.shape + statistic.axes);
  return rows_of_axes(x, axes);
}

double Arguments::number(double low, double below) {
  const double value = as_double(object());
  require(low <= value && value < below);
  return value;
}

double Arguments::finite(Type type) {
  const double value = as_double(object());
  const double most = type == Type::float32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  require(std::fabs(value) <= most);
  return value;
}

int64_t Arguments::integer(int64_t low, int64_t high) {
  uint64_t value = 0;
  require(as_uint64(object(), value) && value <= static_cast<uint64_t>(high) && static_cast<int64_t>(value) >= low);
  return static_cast<int64_t>(value);
}

uint64_t Arguments::natural() {
  uint64_t value = 0;
  require(as_uint64(object(), value));
  return value;
}

bool Arguments::flag() {
  PyObject* const argument = object();
  require(argument == Py_True || argument == Py_False);
  return argument == Py_True;
}

int Arguments::axis_of(const Array& x) {
  PyObject* const argument = object();
  if (!PyLong_CheckExact(argument)) return refused(0);
  int overflow = 0;
  const int64_t axis = PyLong_AsLongLongAndOverflow(argument, &overflow);
  if (overflow != 0 || axis < -x.axes || axis >= x.axes) return refused(0);
  return static_cast<int>(axis < 0 ? axis + x.axes : axis);
}

std::pair<double, double> Arguments::betas() {
  PyObject* const pair = object();
  if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) return refused(std::pair(0.0, 0.0));
  Arguments two(&PyTuple_GET_ITEM(pair, 0), 2);
  const double beta1 = two.number(0, 1), beta2 = two.number(0, 1);
  require(two.good());
  return {beta1, beta2};
}

std::string_view Arguments::text() {
  PyObject* const argument = object();
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_CheckExact(argument) ? PyUnicode_AsUTF8AndSize(argument, &length) : nullptr;
  if (text) return {text, static_cast<size_t>(length)};
  PyErr_Clear();
  return refused(std::string_view());
}

DropoutArguments Arguments::dropout(uint64_t size) { return dropout(size, false, true); }

DropoutArguments Arguments::dropout_in_training(uint64_t size) { return dropout(size, true, true); }

DropoutArguments Arguments::dropout_without_mask(uint64_t size) { return dropout(size, false, false); }

DropoutArguments Arguments::dropout(uint64_t size, bool has_training, bool has_mask) {
  const double p = as_double(object());
  PyObject* const key = object();
  DropoutArguments result{};
  require(as_uint64(object(), result.offset) && result.offset <= uint64_t{0} - std::max<uint64_t>(1, size));
  const bool training = !has_training || flag();
  if (!(p >= 0 && p <= 1)) return refused(result);
  // A key is needed only if something may be dropped.
  if (key != Py_None || (has_mask && training && p > 0)) require(as_uint64(key, result.key));
  result.threshold = training ? threshold_of(p) : 0;
  return result;
}

bool same_layout(const Array& a, const Array& b) {
  if (a.axes != b.axes || !std::equal(a.shape, a.shape + a.axes, b.shape)) return false;
  if (a.in_order && b.in_order) return true;
  for (int axis = 0; axis < a.axes && a.size > 0; ++axis)
    if (a.shape[axis] > 1 && a.strides[axis] / bytes_of(a.type) != b.strides[axis] / bytes_of(b.type)) return false;
  return true;
}

Reference items_of(PyObject* object) {
  if (PyTuple_CheckExact(object)) return Reference(Py_NewRef(object));
  if (!PyList_CheckExact(object)) return {};
  Reference items(PyList_AsTuple(object));
  if (!items) throw py::error_already_set();
  return items;
}

Reference none() { return Reference(Py_NewRef(Py_None)); }

namespace {

Result array_of_dtype(PyObject* descr, int item_bytes, int axes, const Py_ssize_t* shape) {
  PyObject* const made = new_array_on_line(descr, item_bytes, axes, shape);
  if (!made) throw py::error_already_set();
  return {{py::detail::array_proxy(made)->data}, Reference(made)};
}

}  // namespace

Result new_array(Type type, int axes, const Py_ssize_t* shape) {
  // Not of 16 bits: result_if makes those.
  const int number = type == Type::float32   ? npy_api::NPY_FLOAT_
                     : type == Type::float64 ? npy_api::NPY_DOUBLE_
                                             : npy_api::NPY_BOOL_;
  return array_of_dtype(npy_api::get().PyArray_DescrFromType_(number), bytes_of(type), axes, shape);
}

Result new_indices(Py_ssize_t count) {
  return array_of_dtype(npy_api::get().PyArray_DescrFromType_(npy_api::NPY_INT64_), sizeof(int64_t), 1, &count);
}

Result result(const Array& given, const Array& like) { return result_if(true, given, like, like.type); }

Result result_if(bool wanted, const Array& given, const Array& like) {
  return result_if(wanted, given, like, like.type);
}

Result result_if(bool wanted, const Array& given, const Array& like, Type type) {
  if (!wanted) return {};
  if (given) return {{given.data}, Reference(Py_NewRef(given.object))};
  // bfloat16 has no number that is known here, so a result takes the dtype of its input.
  if (is_half(type)) return array_of_dtype(Py_NewRef(like.descr), bytes_of(type), like.axes, like.shape);
  return new_array(type, like.axes, like.shape);
}

Result gradient_of(const Array& param) { return result_if(static_cast<bool>(param), {}, param); }

Result statistic(Type type, const Array& x, const Rows& rows) { return new_array(type, x.axes - rows.axes, x.shape); }

NamedTuple::NamedTuple(const char* name) : name_(name), next_(std::exchange(named_tuples, this)) {}

void NamedTuple::find_all() {
  const py::module_ results = py::module_::import("pyreg._results");
  for (NamedTuple* named = named_tuples; named; named = named->next_)
    named->type_ = reinterpret_cast<PyTypeObject*>(py::object(results.attr(named->name_)).release().ptr());
}

Reference NamedTuple::of(std::initializer_list<Result*> results) const {
  // From Python 3.14 on, a tuple holds more than its items, so its own constructor has to make it.
  constexpr bool kByConstructor = PY_VERSION_HEX >= 0x030E0000;
  const auto count = static_cast<Py_ssize_t>(results.size());
  Reference made(kByConstructor ? PyTuple_New(count) : type_->tp_alloc(type_, count));
  if (!made) throw py::error_already_set();
  Py_ssize_t place = 0;
  for (Result* result : results) {
    PyObject* item = result->reference.release();
    if (!item) Py_INCREF(item = Py_None);
    PyTuple_SET_ITEM(made.get(), place++, item);
  }
  if (!kByConstructor) return made;
  const Reference arguments(PyTuple_Pack(1, made.get()));
  Reference constructed(arguments ? PyTuple_Type.tp_new(type_, arguments.get(), nullptr) : nullptr);
  if (!constructed) throw py::error_already_set();
  return constructed;
}

}  // namespace pyreg
