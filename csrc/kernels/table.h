// The kernels of one instruction-set level, for one dtype: what csrc/ops calls and a level provides.
#pragma once

#include <cstdint>

namespace pyreg {

enum class Decay { none, coupled, decoupled };
enum class Activation { relu, silu, gelu, gelu_tanh };
enum class Momentum { none, first, next };  // first: the buffer is filled with the gradient

template <typename T>
struct AdamScalars {
  T grad_sign;  // -1 to maximize
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T step_size;  // lr / bias_correction1 * sqrt(bias_correction2)
  T eps_hat;    // eps * sqrt(bias_correction2)
  T decay;      // weight_decay; times lr where decoupled
};

template <typename T>
struct SgdScalars {
  T grad_sign;  // -1 to maximize
  T lr, momentum, one_minus_dampening;
  T decay;  // weight_decay
  bool nesterov;
};

// The dropout of a branch, whose rows (rows, n) stand one behind the other in the stream.
template <typename T>
struct BranchDropout {
  uint64_t threshold, key, index;  // index: that of the first element
  const T* layer_scale;            // (n), or null where the branch is not scaled
  const T* row_scale;              // (rows), or null; goes with layer_scale
};

template <typename T>
struct DropoutAddNormForward {
  int64_t rows, n;
  BranchDropout<T> dropout;
  const T *x, *residual;   // (rows, n)
  int64_t residual_step;   // n, or 0 where one row of the residual stands for all
  const T *weight, *bias;  // (n); RMSNorm has no bias
  double eps;
  T *y, *z;      // (rows, n); z may be null
  double* mean;  // (rows), where the norm has one
  T* rstd;       // (rows)
  T* scratch;    // two rows, each a whole number of lines
  bool stream;
};

template <typename T>
struct DropoutAddNormBackward {
  int64_t rows, n;
  BranchDropout<T> dropout;
  const T *dy, *dz, *z;               // (rows, n)
  int64_t dz_step;                    // n, or 0 where one row of dz stands for all
  const double* mean;                 // (rows), where the norm has one
  const T *rstd, *weight;             // (rows), (n)
  const T* x;                         // (rows, n), or null where there is no dlayer_scale
  T *dx, *dresidual;                  // (rows, n); dresidual may be null
  T *dweight, *dbias, *dlayer_scale;  // (n): sums over these rows. RMSNorm has no dbias; dlayer_scale may be null
  bool stream;                        // dx and dresidual stand alike towards the cache lines
};

// An activation of rows (rows, n), and dropout behind it; backward where there is a dy. index: that of the first
// element in the stream.
template <typename T>
struct ActivationDropout {
  Activation activation;
  int64_t rows, n;
  uint64_t threshold, key, index;
  const T *dy, *x;  // (rows, n); dy is null in the forward pass
  const T* bias;    // (n)
  T* y;             // (rows, n): the result, or dx
  T* dbias;         // (n): the sum over these rows; may be null
  bool stream;
};

// A group of lanes, in which rows are summed: kernels/lanes.h.
constexpr int kGroupBytes = 128;

constexpr int kMaxAxes = 64;  // of an array of NumPy

// x * scale + mask, in rows (rows, n).
template <typename T>
struct SoftmaxScores {
  int64_t rows, n;
  const T* x;     // (rows, n)
  const T* mask;  // the row of n for the first of all rows of the array
  T scale;
  int64_t row;                          // of all rows of the array, the first of these
  int axes;                             // of the array, without the last one
  const int64_t *lengths, *mask_steps;  // (axes): how long each is, and how far on in the mask the next row is
  int64_t queries, query;  // where causal: rows of a sequence, and which of them the first one is; else 0
};

template <typename T>
struct SoftmaxDropoutForward {
  SoftmaxScores<T> scores;
  uint64_t threshold, key, index;
  T* y;               // (rows, n)
  T *maximum, *rsum;  // (rows)
  T* scratch;         // a row, in whole groups of lanes
  bool stream;
};

template <typename T>
struct SoftmaxDropoutBackward {
  SoftmaxScores<T> scores;
  uint64_t threshold, key, index;
  const T* dy;              // (rows, n)
  const T *maximum, *rsum;  // (rows)
  T* dx;                    // (rows, n)
  T* scratch;               // two rows, each in whole groups of lanes
  bool stream;
};

// Raw pointers to contiguous arrays, checked by the caller; the kernels' headers give the shapes. stream:
// the result is written past the caches.
template <typename T>
struct Kernels {
  void (*layer_norm_forward)(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                             double* mean, T* rstd, bool stream);
  void (*layer_norm_backward)(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                              const T* weight, T* dx, T* dweight, T* dbias, bool stream);
  void (*rms_norm_forward)(int64_t rows, int64_t n, const T* x, const T* weight, double eps, T* y, T* rstd,
                           bool stream);
  void (*rms_norm_backward)(int64_t rows, int64_t n, const T* dy, const T* x, const T* rstd, const T* weight, T* dx,
                            T* dweight, bool stream);
  void (*dropout_add_layer_norm_forward)(const DropoutAddNormForward<T>& arguments);
  void (*dropout_add_layer_norm_backward)(const DropoutAddNormBackward<T>& arguments);
  void (*dropout_add_rms_norm_forward)(const DropoutAddNormForward<T>& arguments);
  void (*dropout_add_rms_norm_backward)(const DropoutAddNormBackward<T>& arguments);
  void (*softmax_dropout_forward)(const SoftmaxDropoutForward<T>& arguments);
  void (*softmax_dropout_backward)(const SoftmaxDropoutBackward<T>& arguments);
  void (*activation_dropout)(const ActivationDropout<T>& arguments);
  void (*exponential)(int64_t n, const T* x, T* y);
  void (*dropout)(int64_t n, const T* x, uint64_t threshold, uint64_t key, uint64_t index, T* y, bool stream);
  void (*drop_path)(int64_t rows, int64_t n, const T* x, const uint8_t* kept, T scale, T* y, bool stream);
  void (*dropout_mask)(int64_t n, uint64_t threshold, uint64_t key, uint64_t index, uint8_t* kept);
  void (*adam)(int64_t n, const AdamScalars<T>& scalars, Decay decay, T* param, const T* grad, T* exp_avg,
               T* exp_avg_sq, T* max_exp_avg_sq);
  void (*sgd)(int64_t n, const SgdScalars<T>& scalars, bool decay, Momentum momentum, T* param, const T* grad,
              T* momentum_buffer);
  void (*copy)(int64_t n, const T* source, T* target, bool stream);
  void (*update_loop)(int64_t n, T* param, const T* grad, T* exp_avg, T* exp_avg_sq);
  double (*sum_of_squares)(int64_t n, const T* x);
};

}  // namespace pyreg
