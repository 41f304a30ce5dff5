// The kernels of one instruction-set level, for one dtype: what csrc/ops calls and a level provides.
#pragma once

#include <cstdint>

namespace pyreg {

enum class Decay { none, coupled, decoupled };
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

// Raw pointers to contiguous arrays, checked by the caller; the kernels' headers give the shapes. stream:
// the result is written past the caches.
template <typename T>
struct Kernels {
  void (*layer_norm_forward)(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                             double* mean, T* rstd, bool stream);
  void (*layer_norm_backward)(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                              const T* weight, T* dx, T* dweight, T* dbias, bool stream);
  void (*dropout)(int64_t n, const T* x, uint64_t threshold, uint64_t key, uint64_t index, T* y, bool stream);
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
