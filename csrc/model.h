// The arrays of an update: of one parameter, or of all parameters of a model.
#pragma once

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.h"
#include "cache.h"
#include "dispatch.h"
#include "parallel.h"
#include "tiles.h"

namespace pyreg {

// A parameter and the arrays beside it, all of the same shape and layout; but the gradient may have some rows alone.
struct Tensor {
  int64_t size = 0;               // how many elements are updated
  int64_t whole = 0;              // how many the parameter has
  int64_t row = 0;                // elements in a row of the parameter, if some rows alone are updated
  const int64_t* rows = nullptr;  // their indices; null if all are updated
  const Tiles* tiles = nullptr;   // how to walk it, if it is not in C order and its place in the stream matters
  uint64_t in_stream = 0;         // the place of the parameter's first element in the random stream
  int64_t place = 0, places = 0;  // of its work in that of the model; how much there is
  bool is_double = false;
  bool is_random = false;  // whether one of its arrays is rounded by random numbers
  Precision precision = Precision::other;
  UpdateArrays arrays = {};

  int64_t multiple() const {
    return is_double ? kernels<double>().update_multiple : kernels<float>().update_multiple;
  }
  // Element `at` of each array, and those after it; but element `grad_at` of the gradient.
  UpdateArrays from(int64_t at, int64_t grad_at) const;
};

// Which arrays are rounded by random numbers, and which numbers those are.
struct Rounding {
  bool is_random[kRoles] = {};
  uint64_t key = 0, offset = 0;

  bool is_any() const;
};

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

// What to do with n neighbouring elements of a tensor's arrays. n is a multiple of what the kernels take.
class PieceWork {
 public:
  virtual void run(const Tensor& tensor, int64_t n, const UpdateArrays& arrays,
                   const RandomNumbers* random) const = 0;

 protected:
  ~PieceWork() = default;
};

// The name of an array in Python, and its role.
using NamedRole = std::pair<std::string_view, Role>;

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
  // Takes what every update takes last. states: those that may be rounded by random numbers.
  UpdateOptions take_options(Arguments& a, bool maximize, std::initializer_list<NamedRole> states);
  // Reads what was taken.
  void read(Arguments& a, const UpdateOptions& options);

  // Updates all parameters, unless skip_nonfinite is set and some gradient is not finite. Returns whether it did, for
  // Python. scalars(T{}): those of the parameters that are computed in T. kernel: finds the kernel in a table.
  template <typename Scalars, typename Kernel>
  Reference update(const UpdateOptions& options, Scalars scalars, Kernel kernel) const {
    struct Work final : PieceWork {
      Work(Scalars& scalars, Kernel& find) : floats(scalars(float{})), doubles(scalars(double{})), kernel(find) {}
      void run(const Tensor& tensor, int64_t n, const UpdateArrays& arrays,
               const RandomNumbers* random) const override {
        if (tensor.is_double)
          kernel(kernels<double>())(n, arrays, random, tensor.precision, doubles);
        else
          kernel(kernels<float>())(n, arrays, random, tensor.precision, floats);
      }

      decltype(scalars(float{})) floats;
      decltype(scalars(double{})) doubles;
      Kernel& kernel;
    };
    const Work work(scalars, kernel);
    return Reference(PyBool_FromLong(update(options, work)));
  }

 private:
  void add_tensor(Arguments& a, PyObject* const* objects, PyObject* rows, const Rounding& rounding);
  void read_rows(Arguments& a, PyObject* object, const Array& param, Tensor& tensor);
  bool are_disjoint() const;

  bool update(const UpdateOptions& options, const PieceWork& work) const;
  bool all_finite(double scale) const;
  template <typename Run>
  void each_part(int64_t bytes, Run run) const;

  PyObject* objects_[kRoles] = {};
  PyObject* rows_object_ = nullptr;
  Reference lists_[kRoles], rows_list_;
  std::vector<Tensor> tensors_;
  std::deque<Tiles> tiles_;
  std::vector<std::vector<int64_t>> rows_;
  int64_t places_ = 0, bytes_ = 0, grad_bytes_ = 0;
  uint64_t in_stream_ = 0;  // elements so far
};

}  // namespace pyreg
