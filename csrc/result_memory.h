// The memory of results. It starts on a cache line: vectors of an array that does not are loaded and stored across
// lines.
#pragma once

#include <pybind11/pybind11.h>

namespace pyreg {

// Called when the module is imported.
void find_numpys_memory();

// A new array that owns its data. Takes the reference to `descr`. Null, with a Python error, if there is no memory.
PyObject* new_array_on_line(PyObject* descr, Py_ssize_t item_bytes, int axes, const Py_ssize_t* shape);

}  // namespace pyreg
