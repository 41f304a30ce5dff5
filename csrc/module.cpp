#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "parallel.h"
#include "result_memory.h"
#include "workers.h"

namespace pyreg {
namespace {

// Clang's __VERSION__ begins with the compiler's name; gcc's is only a number.
#if defined(__clang__)
constexpr char kCompiler[] = __VERSION__;
#else
constexpr char kCompiler[] = "gcc " __VERSION__;
#endif

}  // namespace
}  // namespace pyreg

// Shared state is atomic or guarded by a mutex, so the free-threaded interpreter can leave its lock off.
PYBIND11_MODULE(core_of_main_interpreter, m, pybind11::mod_gil_not_used()) {
  using namespace pyreg;
  try {
    choose_isa();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(std::string("pyreg: ") + error.what());
  }
  prepare_for_fork();

  m.attr("__version__") = PYREG_VERSION;
  m.attr("compiler") = kCompiler;
  m.attr("build_type") = PYREG_BUILD_TYPE;
  m.attr("most_bytes_cached") = kMostBytesCached;
  m.def("isa_built", isa_built);
  m.def("isa_found", isa_found);
  m.def("isa_chosen", isa_chosen);
  m.def("use_isa", use_isa, py::arg("name"));
  m.def("get_num_threads", num_threads);
  m.def("set_num_threads", set_num_threads, py::arg("threads"));
  m.def("set_scoped_num_threads", set_scoped_num_threads, py::arg("threads"));
  m.def("openmp_runtime", openmp_runtime);

  // The first use of it waits for the interpreter's lock, in a noexcept destructor of pybind11 (see released_gil.h).
  py::detail::npy_api::get();
  find_numpys_memory();
  NamedTuple::find_all();
  Functions::add_all(m);
}

// The entry point of the module. pybind11's own hangs in Python 3.11 if a subinterpreter is the first to import it.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return PyInit_core_of_main_interpreter();
  PyErr_SetString(PyExc_ImportError, "pyreg works only in the main interpreter, not in a subinterpreter");
  return nullptr;
}
