// A model whose arrays are read once, and its gradients step by step (ops/prepared.cpp).
#include <algorithm>

#include "model.h"

namespace pyreg {

void Model::prepare(Arguments& a) {
  a.accept_subclasses();
  for (const Role role : {kParam, kExpAvg, kExpAvgSq, kMaxExpAvgSq, kEma, kParamOut}) take_optional(a, role);
  rounding_.take(a, {{"param", kParam},
                     {"exp_avg", kExpAvg},
                     {"exp_avg_sq", kExpAvgSq},
                     {"momentum_buffer", kMomentumBuffer},
                     {"ema", kEma},
                     {"param_out", kParamOut}});
  const Reference places = items_of(a.object());
  a.require(objects_[kParam] && places);
  if (!a.good()) return;
  read_lists(a, rounding_, true);
  Arguments each(&PyTuple_GET_ITEM(places.get(), 0), PyTuple_GET_SIZE(places.get()));
  for (Tensor& tensor : tensors_) {
    tensor.in_stream = each.natural();
    tensor.usual_precision = precision_of(tensor, tensor.arrays[kParam].type);
    const Py_ssize_t i = &tensor - tensors_.data();
    for (const Role role : {kParam, kParamOut})
      if (tensor.arrays[role].data) Arguments::add_layout(PyTuple_GET_ITEM(lists_[role].get(), i), layouts_);
  }
  a.require(each.good() && lists_[kParam]);
  spans_.resize(kRoles * tensors_.size());
  spans_.resize(add_spans(spans_.data()) - spans_.data());
  std::sort(spans_.begin(), spans_.end());
  a.require(no_written_span_overlaps(spans_.data(), spans_.data() + spans_.size()));
}

bool Model::take_gradients(const Model& prepared, PyObject* grads) {
  first_ = prepared.first_;
  last_ = prepared.last_;
  rounding_ = prepared.rounding_;
  lists_[kGrad] = items_of(grads);
  const Py_ssize_t count = last_ - first_;
  if (!lists_[kGrad] || PyTuple_GET_SIZE(lists_[kGrad].get()) != count) return false;
  gradients_.resize(count);
  first_gradient_ = gradients_.data();
  std::vector<Span> spans(count);
  const Py_ssize_t* layout = prepared.layouts_.data();
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Tensor& tensor = first_[i];
    const auto object = [&](const Model& model, int role) {
      return PyTuple_GET_ITEM(model.lists_[role].get(), i);
    };
    const auto is_as_it_was = [&](Role role) {
      return Arguments::is_as_it_was(object(prepared, role), tensor.arrays[role], layout);
    };
    // The others are the class's own.
    if (!is_as_it_was(kParam) || (tensor.has_copy && !is_as_it_was(kParamOut))) return false;
    const Array grad = Arguments::dense_like(object(*this, kGrad), object(prepared, kParam));
    if (!grad || grad.size != tensor.size || !fits(kGrad, grad.type, tensor.arrays[kParam].type)) return false;
    const Type param = tensor.arrays[kParam].type;
    gradients_[i] = {{grad.as<char>(), grad.type},
                     grad.type == param ? tensor.usual_precision : precision_of(tensor, grad.type)};
    spans[i] = {grad.as<char>(), grad.as<char>() + tensor.size * bytes_of(grad.type), false};
  }
  if (!std::is_sorted(spans.begin(), spans.end())) std::sort(spans.begin(), spans.end());
  auto written = prepared.spans_.begin();
  for (const Span& span : spans) {
    while (written != prepared.spans_.end() && written->end <= span.begin) ++written;
    if (written != prepared.spans_.end() && written->begin < span.end && span.begin < span.end) return false;
  }
  return true;
}

void Model::read_part(Arguments& a, const Model& whole, const Rounding& rounding) {
  PyObject* const range = objects_[kGrad];
  a.require(range && PyTuple_CheckExact(range));
  for (int role = kExpAvg; role < kRoles; ++role) a.require(!objects_[role]);
  a.require(!rows_object_ && std::equal(rounding.is_random, rounding.is_random + kRoles, whole.rounding_.is_random));
  if (!a.good_so_far()) return;
  Arguments two(&PyTuple_GET_ITEM(range, 0), PyTuple_GET_SIZE(range));
  const int64_t begin = two.integer(0), end = two.integer(begin, whole.last_ - whole.first_);
  a.require(two.good() && begin <= end);
  if (!a.good_so_far()) return;
  first_ = whole.first_ + begin;
  last_ = whole.first_ + end;
  first_gradient_ = whole.first_gradient_ + begin;
}

}  // namespace pyreg
