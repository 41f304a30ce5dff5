// The arrays of an update: of one parameter, or of all parameters of a model.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"
#include "cache.h"
#include "dispatch.h"
#include "parallel.h"

namespace pyreg {

// A parameter and the arrays beside it, all of the same shape and layout.
struct Tensor {
  int64_t size;
  int64_t place;  // of its first element among those of the model
  bool is_double;
  UpdateArrays arrays;
  Usual usual;

  int64_t step() const { return is_double ? kernels<double>().update_step : kernels<float>().update_step; }
  // Element `at` of each array, and those after it.
  UpdateArrays from(int64_t at) const {
    UpdateArrays part = arrays;
    for (Stored& array : part.of)
      if (array.data) array.data += at * bytes_of(array.type);
    return part;
  }
};

// A copy of what is left of a tensor's arrays after whole steps of the kernels, followed by zeros.
class Rest {
 public:
  // count: what is left; step: what the copy has.
  Rest(const UpdateArrays& arrays, int64_t count, int64_t step);

  const UpdateArrays& arrays() const { return copy_; }
  // Copies back all but the gradient.
  void write() const;

 private:
  static constexpr int kMostBytes = 128;  // of a step, in each array

  const UpdateArrays original_;
  const int64_t count_;
  UpdateArrays copy_;
  alignas(kLineBytes) char bytes_[kRoles][kMostBytes];
};

// Calls run(n, arrays) for the elements begin, ..., end - 1 in whole steps.
template <typename Run>
void in_steps(const Tensor& tensor, int64_t begin, int64_t end, int64_t step, Run run) {
  const int64_t left = (end - begin) % step, whole = end - begin - left;
  if (whole > 0) run(whole, tensor.from(begin));
  if (left == 0) return;
  const Rest rest(tensor.from(begin + whole), left, step);
  run(step, rest.arrays());
  rest.write();
}

// What all updates take beside the numbers of their own.
struct UpdateOptions {
  bool maximize;
  double grad_scale;
  bool skip_nonfinite;
  double ema_decay;

  template <typename T>
  UpdateScalars<T> scalars() const {
    return {static_cast<T>(maximize ? -grad_scale : grad_scale), static_cast<T>(ema_decay),
            static_cast<T>(1 - ema_decay)};
  }
};

class Model {
 public:
  // Takes the next argument for this role: an array, or a list with an array for each parameter. Or None, if
  // optional.
  void take(Arguments& a, Role role) { a.require(take_optional(a, role)); }
  bool take_optional(Arguments& a, Role role) {
    PyObject* const argument = a.object();
    objects_[role] = argument == Py_None ? nullptr : argument;
    return objects_[role] != nullptr;
  }
  // Takes what every update takes last.
  UpdateOptions take_options(Arguments& a, bool maximize) {
    const double grad_scale = a.number();
    const bool skip_nonfinite = a.flag();
    take_optional(a, kEma);
    const double ema_decay = a.number(0, 1);
    take_optional(a, kParamOut);
    return {maximize, grad_scale, skip_nonfinite, ema_decay};
  }
  // Reads what was taken.
  void read(Arguments& a);

  // Updates all parameters, unless some gradient is to be skipped. Returns whether it did, for Python. scalars(T{}):
  // those of the parameters that are computed in T. kernel: a member of FloatKernels.
  template <typename Scalars, typename Kernel>
  Reference update(const UpdateOptions& options, Scalars scalars, Kernel kernel) const {
    return Reference(PyBool_FromLong([&] {
      const ReleasedGil released;
      if (options.skip_nonfinite && !all_finite(options.grad_scale)) return false;
      const auto floats = scalars(float{});
      const auto doubles = scalars(double{});
      each_piece(bytes_, [&](const Tensor& tensor, int64_t begin, int64_t end) {
        in_steps(tensor, begin, end, tensor.step(), [&](int64_t n, const UpdateArrays& arrays) {
          if (tensor.is_double)
            kernel(kernels<double>())(n, arrays, tensor.usual, doubles);
          else
            kernel(kernels<float>())(n, arrays, tensor.usual, floats);
        });
      });
      return true;
    }()));
  }

 private:
  void add_tensor(Arguments& a, PyObject* const* objects);
  bool are_disjoint() const;
  bool all_finite(double scale) const;

  // Calls run(tensor, begin, end) for pieces of all tensors, on as many threads as are useful. bytes: moved by all.
  template <typename Run>
  void each_piece(int64_t bytes, Run run) const {
    parallel_blocks(places_, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
      const auto before = [](int64_t place, const Tensor& tensor) {
        return place < tensor.place;
      };
      auto tensor = std::upper_bound(tensors_.begin(), tensors_.end(), begin, before) - 1;
      for (; tensor != tensors_.end() && tensor->place < end; ++tensor) {
        const int64_t from = std::max<int64_t>(begin - tensor->place, 0);
        const int64_t to = std::min(end - tensor->place, tensor->size);
        if (from < to) run(*tensor, from, to);
      }
    });
  }

  PyObject* objects_[kRoles] = {};
  Reference lists_[kRoles];
  std::vector<Tensor> tensors_;
  int64_t places_ = 0, bytes_ = 0, grad_bytes_ = 0;
};

}  // namespace pyreg
