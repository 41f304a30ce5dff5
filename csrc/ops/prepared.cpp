// For the optimiser classes: what stays the same from step to step is checked once. A step adds the gradients, for
// all parameters together, before the first of them changes. The updates take the result in place of `param`, and the
// range of parameters, as (begin, end), in place of `grad`.

#include <memory>

#include "functions.h"
#include "model.h"

namespace pyreg {
namespace {

Reference capsule_of(std::unique_ptr<Model> model, const char* name, PyObject* kept) {
  Reference capsule(PyCapsule_New(model.get(), name, [](PyObject* object) {
    Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(object)));
    delete static_cast<Model*>(PyCapsule_GetPointer(object, PyCapsule_GetName(object)));
  }));
  if (!capsule) throw py::error_already_set();
  model.release();
  PyCapsule_SetContext(capsule.get(), Py_XNewRef(kept));
  return capsule;
}

// The arrays of all parameters: a list or None for each role, the rounding, and each parameter's place in the stream.
// None, if something is refused.
Reference prepare(Arguments& a) {
  auto model = std::make_unique<Model>();
  model->prepare(a);
  return a.good() ? capsule_of(std::move(model), Model::kPrepared, nullptr) : none();
}

// A prepared model and the list of its gradients; or None, if something does not fit as it is.
Reference with_gradients(Arguments& a) {
  PyObject *const prepared = a.object(), *const grads = a.object();
  a.require(PyCapsule_IsValid(prepared, Model::kPrepared));
  if (!a.good()) return {};
  auto model = std::make_unique<Model>();
  if (!model->take_gradients(*static_cast<Model*>(PyCapsule_GetPointer(prepared, Model::kPrepared)), grads))
    return none();
  return capsule_of(std::move(model), Model::kWithGradients, prepared);
}

// Whether all items of a list or tuple are plain arrays.
Reference are_arrays(Arguments& a) {
  PyObject* const items = a.object();
  a.require(PyList_CheckExact(items) || PyTuple_CheckExact(items));
  if (!a.good()) return {};
  bool all = true;
  for (Py_ssize_t i = 0; all && i < PySequence_Fast_GET_SIZE(items); ++i)
    all = Arguments::is_array(PySequence_Fast_GET_ITEM(items, i));
  return Reference(PyBool_FromLong(all));
}

const Functions functions{named_plain<prepare>("prepare"), named_plain<with_gradients>("with_gradients"),
                          named_plain<are_arrays>("are_arrays")};

}  // namespace
}  // namespace pyreg
