// The arrays of an update: of one parameter, or of all parameters of a model.
#pragma once

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.h"
#include "dispatch.h"
#include "update_parts.h"

namespace pyreg {

// What all updates take beside the numbers of their own.
struct UpdateOptions {
  bool maximize = false;
  double grad_scale = 1;
  bool skip_nonfinite = false;
  double ema_decay = 0;
  Rounding rounding = {};

  template <typename T>
  UpdateScalars<T> scalars() const {
    return {static_cast<T>(maximize ? -grad_scale : grad_scale), static_cast<T>(ema_decay),
            static_cast<T>(1 - ema_decay)};
  }
};

// What an update reads or writes in memory.
struct Span {
  const char *begin, *end;
  bool written;

  bool operator<(const Span& other) const { return begin < other.begin; }
};

// All parameters of a call, with the arrays beside them.
class Model {
 public:
  static constexpr char kPrepared[] = "pyreg.prepared", kWithGradients[] = "pyreg.with_gradients";  // of capsules

  Model() = default;
  Model(const Model&) = delete;

  // Takes the next argument for this role: an array, or a list with an array for each parameter. It may be None if it
  // is optional, or if `param` is a model with gradients, whose range is then in place of `grad` (ops/prepared.cpp).
  void take(Arguments& a, Role role);
  // Returns whether it is given.
  bool take_optional(Arguments& a, Role role) {
    PyObject* const argument = a.object();
    objects_[role] = argument == Py_None ? nullptr : argument;
    return objects_[role] != nullptr;
  }
  // Takes what every update takes last. names: of the arrays that may be rounded by random numbers.
  UpdateOptions take_options(Arguments& a, bool maximize, std::initializer_list<NamedRole> names);
  // Reads what was taken.
  void read(Arguments& a, const UpdateOptions& options);
  // Whether all parameters have an array of this role.
  bool has(Role role) const { return !lacks_[role]; }

  // Takes and reads all arrays of a model but its gradients, and where its parameters begin in the random stream.
  void prepare(Arguments& a);
  // Reads gradients for the parameters of `prepared`, which outlives this model. Returns false if one does not fit,
  // or an array of `prepared` is no longer as it was.
  bool take_gradients(const Model& prepared, PyObject* grads);

  // Updates all parameters, unless skip_nonfinite is set and some gradient is not finite. Returns whether it did, for
  // Python. scalars(T{}): those of the parameters that are computed in T. kernel: finds the kernel in a table.
  template <typename Scalars, typename Kernel>
  Reference update(const UpdateOptions& options, Scalars scalars, Kernel kernel) const {
    struct Work final : PieceWork {
      Work(Scalars& scalars, Kernel& find) : floats(scalars(float{})), doubles(scalars(double{})), kernel(find) {}
      void run(bool is_double, Precision precision, int64_t n, const UpdateArrays& arrays,
               const RandomNumbers* random) const override {
        if (is_double)
          kernel(kernels<double>())(n, arrays, random, precision, doubles);
        else
          kernel(kernels<float>())(n, arrays, random, precision, floats);
      }

      decltype(scalars(float{})) floats;
      decltype(scalars(double{})) doubles;
      Kernel& kernel;
    };
    const Work work(scalars, kernel);
    return Reference(PyBool_FromLong(update(options, work)));
  }

 private:
  // Whether an array of this role may have this type. pyreg/_model.py has the same rule.
  static bool fits(int role, Type type, Type param);
  static Precision precision_of(const Tensor& tensor, Type grad);
  // Whether nothing that is written is in another span too. The spans are in order.
  static bool no_written_span_overlaps(const Span* begin, const Span* end);

  void read_lists(Arguments& a, const Rounding& rounding, bool some_lack);
  void add_tensor(Arguments& a, PyObject* const* objects, PyObject* rows, const Rounding& rounding);
  void read_part(Arguments& a, const Model& whole, const Rounding& rounding);
  void read_rows(Arguments& a, PyObject* object, const Array& param, Tensor& tensor);
  bool are_disjoint() const;
  // Adds the spans of all arrays from `end` on, and returns the end after them.
  Span* add_spans(Span* end) const;

  bool update(const UpdateOptions& options, const PieceWork& work) const;
  bool all_finite(double scale) const;
  template <typename Run>
  void each_part(int64_t bytes, const PieceWork& work, const Rounding& rounding, Run run) const;
  const Gradient& gradient_of(const Tensor* tensor) const { return first_gradient_[tensor - first_]; }

  PyObject* objects_[kRoles] = {};
  PyObject* rows_object_ = nullptr;
  Reference lists_[kRoles], rows_list_;
  std::vector<Tensor> tensors_;
  std::vector<Gradient> gradients_;
  std::deque<Tiles> tiles_;
  std::vector<std::vector<int64_t>> rows_;
  // The tensors that are updated, and the gradient of the first: all, or a part of those of another model.
  const Tensor *first_ = nullptr, *last_ = nullptr;
  const Gradient* first_gradient_ = nullptr;
  int64_t bytes_ = 0;  // moved by the update
  bool lacks_[kRoles] = {};
  int64_t places_ = 0;      // where the work on the next tensor begins
  uint64_t in_stream_ = 0;  // and the tensor in the random stream

  // Of a prepared model.
  Rounding rounding_;
  std::vector<Span> spans_;
  std::vector<Py_ssize_t> layouts_;  // of each param and its param_out
};

}  // namespace pyreg
