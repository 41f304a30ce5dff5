// Releases the interpreter's lock (the GIL) while kernels run.
#pragma once

#include <pybind11/pybind11.h>

namespace pyreg {

// Like py::gil_scoped_release, but the destructor is not noexcept. An interpreter that is shutting down ends a daemon
// thread when it asks for the lock, by unwinding its stack. That unwinding must not pass through a noexcept
// destructor.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) { released = true; }
  ReleasedGil(const ReleasedGil&) = delete;
  ~ReleasedGil() noexcept(false) {
    PyEval_RestoreThread(state_);
    released = false;
  }

  // Whether this thread has released the lock. It stays true while the thread ends like that.
  static inline thread_local bool released = false;

 private:
  PyThreadState* state_;
};

}  // namespace pyreg
