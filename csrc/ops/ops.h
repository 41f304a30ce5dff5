// What each file of this folder registers.
#pragma once

#include "arrays.h"

namespace pyreg {

void bind_activation_dropout(py::module_& m);
void bind_adam(py::module_& m);
void bind_arguments(py::module_& m);
void bind_config(py::module_& m);
void bind_copy(py::module_& m);
void bind_drop_path(py::module_& m);
void bind_dropout(py::module_& m);
void bind_dropout_add_norm(py::module_& m);
void bind_elementary(py::module_& m);
void bind_l2_penalty(py::module_& m);
void bind_layer_norm(py::module_& m);
void bind_rms_norm(py::module_& m);
void bind_sgd(py::module_& m);
void bind_softmax_dropout(py::module_& m);

}  // namespace pyreg
