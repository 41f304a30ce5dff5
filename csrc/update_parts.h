// The work of an update, in pieces that the kernels take.
#pragma once

#include <cstdint>

#include "dispatch.h"
#include "rounding.h"
#include "tiles.h"

namespace pyreg {

// What comes with a parameter in a call.
struct Gradient {
  Stored array;
  Precision precision = Precision::other;  // of all arrays of the parameter together
};

// A parameter and the arrays beside it, all of the same shape and layout; but the gradient may have some rows alone.
struct Tensor {
  // What is read when gradients are added to a prepared model stands first.
  int64_t size = 0;                              // how many elements are updated
  Precision usual_precision = Precision::other;  // if the gradient has the parameter's type
  bool is_double = false, has_copy = false;      // has_copy: whether there is a param_out
  bool is_random = false;                        // whether one of its arrays is rounded by random numbers
  UpdateArrays arrays = {};                      // without the gradient
  int64_t place = 0, places = 0;                 // of its work in that of the model; how much there is
  int64_t bytes = 0;                             // moved by an update, without the gradient
  int64_t whole = 0;                             // how many elements the parameter has
  uint64_t in_stream = 0;                        // the place of its first element in the random stream
  int64_t row = 0;                               // elements in a row of it, if some rows alone are updated
  const int64_t* rows = nullptr;                 // their indices; null if all are updated
  const Tiles* tiles = nullptr;                  // how to walk it, if it is random and not in C order

  int64_t multiple() const {
    return is_double ? kernels<double>().update_multiple : kernels<float>().update_multiple;
  }
};

// What to do with n neighbouring elements of a tensor's arrays. n is a multiple of what the kernels take.
class PieceWork {
 public:
  virtual void run(bool is_double, Precision precision, int64_t n, const UpdateArrays& arrays,
                   const RandomNumbers* random) const = 0;

 protected:
  ~PieceWork() = default;
};

// What is left of arrays after the multiple that the kernels take. It is copied side by side with what is left of
// others, until there is as much as they take, or no more comes: then zeros follow.
class Rests {
 public:
  explicit Rests(const PieceWork& work) : work_(work) {}
  Rests(const Rests&) = delete;

  // The elements `at`, ..., at + count - 1 of the arrays.
  void add(const Tensor& tensor, Precision precision, const UpdateArrays& arrays, const RandomNumbers* random,
           int64_t at, int64_t count);
  void finish();

 private:
  struct Rest {
    char* data[kRoles];
    int64_t count;
  };
  static constexpr int kMost = kGroupBytes / sizeof(float);  // elements

  const PieceWork& work_;
  // What all rests have in common: their types, as numbers of 8 bits, and which are rounded by random numbers.
  uint64_t types_ = 0;
  bool is_random_ = false;
  bool is_double_ = false;
  Precision precision_ = Precision::other;
  int64_t multiple_ = 0, filled_ = 0;
  int rests_ = 0;
  Rest rest_[kMost];
  bool random_[kRoles] = {};
  uint16_t numbers_[kRoles][kMost];
  alignas(kLineBytes) char bytes_[kRoles][kGroupBytes];
};

// Runs parts of tensors, one after the other.
class Parts {
 public:
  Parts(const PieceWork& work, const Rounding& rounding) : work_(work), rounding_(rounding), rests_(work) {}

  // The elements begin, ..., end - 1 of those that are updated; of a tensor in tiles, the tiles at these places.
  void run(const Tensor& tensor, const Gradient& gradient, int64_t begin, int64_t end);
  // The gradient alone.
  void run_gradient(const Tensor& tensor, const Gradient& gradient, int64_t begin, int64_t end);
  // Has to be called at last.
  void finish() { rests_.finish(); }

 private:
  void run_piece(const Tensor& tensor, Precision precision, const UpdateArrays& arrays, const RandomNumbers* random,
                 int64_t n);
  void run_randomly(const Tensor& tensor, Precision precision, const UpdateArrays& arrays, uint64_t place, int64_t n);
  void run_tile(const Tensor& tensor, const Gradient& gradient, int64_t index);

  const PieceWork& work_;
  const Rounding& rounding_;
  Rests rests_;
};

}  // namespace pyreg
