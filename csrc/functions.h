// How the functions of csrc/ops become functions of the Python module.
#pragma once

#include <initializer_list>
#include <vector>

#include "arguments.h"

namespace pyreg {

// A function of csrc/ops: reads its arguments and returns a result, or an empty Reference if an argument is rejected.
using Function = Reference (*)(Arguments& arguments);

// The call from Python. The last argument is a Python function that checks the others. It is called if one of them is
// rejected, and either raises or returns them converted to what the function accepts. If one is rejected then, it is
// called once more.
PyObject* call_checked(Function function, PyObject* const* arguments, Py_ssize_t count);
// The same without a checking function: a rejected argument is a TypeError.
PyObject* call_plain(Function function, PyObject* const* arguments, Py_ssize_t count);

// The functions of one file. Define it at namespace scope; they are added when the module is imported.
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
