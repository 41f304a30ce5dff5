#include "functions.h"

#include <new>
#include <utility>

#include "float_environment.h"

namespace pyreg {
namespace {

constexpr char kChanged[] = "an argument that passed its check is refused: another thread changed it during the call";

Functions* all_functions = nullptr;

// Runs a function in the default floating-point mode, checks included, which may convert small numbers. Turns these
// C++ exceptions into Python's; others pass through, such as the one that ends a thread (released_gil.h).
template <typename Run>
PyObject* guarded(Run run) {
  try {
    const DefaultFloatEnvironment environment;
    return run();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return nullptr;
}

Reference call(Function function, PyObject* const* arguments, Py_ssize_t count, bool checked = false) {
  Arguments taken(arguments, count, checked);
  return function(taken);
}

}  // namespace

PyObject* call_checked(Function function, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([=]() mutable -> PyObject* {
    if (count == 0) throw py::type_error("_core: the last argument is the function that checks the others");
    PyObject* const check = arguments[--count];
    Reference result = call(function, arguments, count);
    // The check may only convert at first, and look for what is wrong if that does not help.
    Reference checked;
    for (int round = 0; round < 2 && !result; ++round) {
      Reference converted(PyObject_Vectorcall(check, arguments, count, nullptr));
      if (!converted) return nullptr;
      if (!PyTuple_Check(converted.get()) || PyTuple_GET_SIZE(converted.get()) != count) break;
      std::swap(checked, converted);
      arguments = &PyTuple_GET_ITEM(checked.get(), 0);
      result = call(function, arguments, count, true);
    }
    if (!result) PyErr_SetString(PyExc_RuntimeError, kChanged);
    return result.release();
  });
}

PyObject* call_plain(Function function, PyObject* const* arguments, Py_ssize_t count) {
  return guarded([=]() -> PyObject* {
    Reference result = call(function, arguments, count);
    if (!result) PyErr_SetString(PyExc_TypeError, "_core: an argument is refused");
    return result.release();
  });
}

Functions::Functions(std::initializer_list<PyMethodDef> functions)
    : functions_(functions), next_(std::exchange(all_functions, this)) {
  functions_.push_back({nullptr, nullptr, 0, nullptr});
}

void Functions::add_all(py::module_& module) {
  for (Functions* file = all_functions; file; file = file->next_)
    if (PyModule_AddFunctions(module.ptr(), file->functions_.data()) != 0) throw py::error_already_set();
}

}  // namespace pyreg
