// The state of the core: instruction-set level, threads, build.

#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// Clang's version begins with its name; gcc's is bare numbers.
#if defined(__clang__)
constexpr char kCompiler[] = __VERSION__;
#else
constexpr char kCompiler[] = "gcc " __VERSION__;
#endif

}  // namespace

void bind_config(py::module_& m) {
  m.attr("__version__") = PYREG_VERSION;
  m.attr("compiler") = kCompiler;
  m.def("isa_built", isa_built);
  m.def("isa_found", isa_found);
  m.def("isa_chosen", isa_chosen);
  m.def("use_isa", use_isa, py::arg("name"));
  m.def("get_num_threads", num_threads);
  m.def("set_num_threads", set_num_threads, py::arg("threads"));
  m.def("set_scoped_num_threads", set_scoped_num_threads, py::arg("threads"));
  m.def("openmp_runtime", openmp_runtime);
}

}  // namespace pyreg
