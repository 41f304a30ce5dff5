#include "ops/ops.h"

#include <stdexcept>
#include <string>

#include "dispatch.h"
#include "workers.h"

// Shared state is atomic or behind a mutex: the free-threaded interpreter need not bring back its lock.
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace pyreg;
  try {
    choose_isa();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(std::string("pyreg: ") + error.what());
  }
  prepare_for_fork();

  bind_activation_dropout(m);
  bind_adam(m);
  bind_arguments(m);
  bind_config(m);
  bind_copy(m);
  bind_drop_path(m);
  bind_dropout(m);
  bind_dropout_add_norm(m);
  bind_elementary(m);
  bind_l2_penalty(m);
  bind_layer_norm(m);
  bind_rms_norm(m);
  bind_sgd(m);
  bind_softmax_dropout(m);
}
