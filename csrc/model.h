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
  Precision precision;

  int64_t multiple() const {
    return is_double ? kernels<double>().update_multiple : kernels<float>().update_multiple;
  }
  // Element `at` of each array, and those after it.
  UpdateArrays from(int64_t at) const {
    UpdateArrays part = arrays;
    for (Stored& array : part.of)
      if (array.data) array.data += at * bytes_of(array.type);
    return part;
  }
};

// A copy of what is left of a tensor's arrays after the multiple that the kernels take, followed by zeros.
class Tail {
 public:
  // count: what is left; size: what the copy has.
  Tail(const UpdateArrays& arrays, int64_t count, int64_t size);
  Tail(const Tail&) = delete;

  const UpdateArrays& arrays() const { return copy_; }
  // Copies back all but the gradient.
  void write() const;

 private:
  const UpdateArrays original_;
  const int64_t count_;
  UpdateArrays copy_;
  alignas(kLineBytes) char bytes_[kRoles][kGroupBytes];
};

// Calls run(n, arrays) for the elements begin, ..., end - 1, with n a multiple of `multiple`.
template <typename Run>
void in_multiples(const Tensor& tensor, int64_t begin, int64_t end, int64_t multiple, Run run) {
  const int64_t left = (end - begin) % multiple, whole = end - begin - left;
  if (whole > 0) run(whole, tensor.from(begin));
  if (left == 0) return;
  const Tail rest(tensor.from(begin + whole), left, multiple);
  run(multiple, rest.arrays());
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

// All parameters of a call, with the arrays beside them.
class Model {
 public:
  // Takes the next argument for this role: an array, or a list with an array for each parameter. Or None, if
  // optional.
  void take(Arguments& a, Role role) { a.require(take_optional(a, role)); }
  // Returns whether it is given.
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
  void read(Arguments& a, const UpdateOptions& options);

  // Updates all parameters, unless skip_nonfinite is set and some gradient is not finite. Returns whether it did, for
  // Python. scalars(T{}): those of the parameters that are computed in T. kernel: finds the kernel in a table.
  template <typename Scalars, typename Kernel>
  Reference update(const UpdateOptions& options, Scalars scalars, Kernel kernel) const {
    return Reference(PyBool_FromLong([&] {
      const ReleasedGil released;
      if (options.skip_nonfinite && !all_finite(options.grad_scale)) return false;
      const auto floats = scalars(float{});
      const auto doubles = scalars(double{});
      each_piece(bytes_, [&](const Tensor& tensor, int64_t begin, int64_t end) {
        in_multiples(tensor, begin, end, tensor.multiple(), [&](int64_t n, const UpdateArrays& arrays) {
          if (tensor.is_double)
            kernel(kernels<double>())(n, arrays, tensor.precision, doubles);
          else
            kernel(kernels<float>())(n, arrays, tensor.precision, floats);
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
