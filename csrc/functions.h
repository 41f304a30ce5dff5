// How the functions of csrc/ops become functions of the module.
#pragma once

#include <initializer_list>
#include <vector>

#include "arguments.h"

namespace pyreg {

// A function of csrc/ops: takes its arguments and returns a result, or nothing where one of them was refused.
using Function = Reference (*)(Arguments& arguments);

// As Python calls it: the last argument is a Python function that checks the others. It is called where one of them
// is refused, and raises, or returns them converted to what is taken.
PyObject* call_checked(Function function, PyObject* const* arguments, Py_ssize_t count);
// Without such a function: a TypeError where an argument is refused.
PyObject* call_plain(Function function, PyObject* const* arguments, Py_ssize_t count);

// The functions of a file. Define it at namespace scope: they are added when the module is imported.
class Functions {
 public:
  Functions(std::initializer_list<PyMethodDef> functions);

  static void add_all(py::module_& module);

 private:
  std::vector<PyMethodDef> functions_;
  Functions* next_;
};

template <Function function, auto call = call_checked>
PyMethodDef named(const char* name) {
  _PyCFunctionFast run = [](PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    return call(function, arguments, count);
  };
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL, nullptr};
}

template <Function function>
PyMethodDef named_plain(const char* name) {
  return named<function, call_plain>(name);
}

}  // namespace pyreg
