// The interpreter's lock, given back while kernels run.
#pragma once

#include <pybind11/pybind11.h>

namespace pyreg {

// As py::gil_scoped_release, but its end may leave the thread: an interpreter that is shutting down ends a daemon
// thread where that asks for the lock, by unwinding its stack, and that may not pass through a destructor that is
// noexcept.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) { released = true; }
  ReleasedGil(const ReleasedGil&) = delete;
  ~ReleasedGil() noexcept(false) {
    PyEval_RestoreThread(state_);
    released = false;
  }

  // Whether this thread is without the lock: also while it ends like that.
  static inline thread_local bool released = false;

 private:
  PyThreadState* state_;
};

}  // namespace pyreg
