// The kernels of one instruction-set level for one dtype. csrc/ops calls them through this table.
//
// S is the type of the elements that are stored, T = Compute<S> the type in which the kernels compute.
#pragma once

#include <cstdint>
#include <type_traits>

namespace pyreg {

// The types of arrays' elements.
enum class Type { none, float32, float64, float16, bfloat16, boolean };

constexpr int bytes_of(Type type) {
  constexpr unsigned char kBytes[] = {/*none*/ 1,    /*float32*/ 4,  /*float64*/ 8,
                                      /*float16*/ 2, /*bfloat16*/ 2,
                                      /*boolean*/ 1};
  return kBytes[static_cast<int>(type)];
}

// Elements of 16 bits, with which the kernels compute in float.
struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};
// A float in an array beside arrays of 16 bits. Rows of plain floats are in the order of the vectors
// (kernels/half.h).
struct float32 {
  float value;
};

template <typename S>
struct ComputeType {
  using type = S;
};
template <>
struct ComputeType<float16> {
  using type = float;
};
template <>
struct ComputeType<bfloat16> {
  using type = float;
};
template <typename S>
using Compute = typename ComputeType<S>::type;

template <typename S>
constexpr bool kHalf = sizeof(S) == 2;

// For all but floats, kernels have less code: a missing weight is all ones in the backward pass, and one loop serves
// both kinds of stores (kernels/row_writer.h).
template <typename S>
constexpr bool kLessCode = !std::is_same_v<S, float>;

constexpr int kLineBytes = 64;  // of a cache line
// A group of lanes: rows are summed in such groups (kernels/lanes.h).
constexpr int kGroupBytes = 128;

template <typename T>
constexpr int64_t line_elements() {
  return kLineBytes / sizeof(T);
}

// n rounded up to whole cache lines, or to whole groups of lanes.
template <typename T>
constexpr int64_t whole_lines(int64_t n) {
  constexpr int64_t kLine = line_elements<T>();
  return (n + kLine - 1) / kLine * kLine;
}

template <typename T>
constexpr int64_t whole_groups(int64_t n) {
  constexpr int64_t kGroup = kGroupBytes / sizeof(T);
  return (n + kGroup - 1) / kGroup * kGroup;
}

enum class Decay { none, coupled, decoupled };
enum class Activation { relu, silu, gelu, gelu_tanh };
enum class Momentum { none, first, next };  // first: the buffer is filled with the gradient

// The elements of an array whose type is known only when it is read; data is null if there is no array.
struct Stored {
  char* data = nullptr;
  Type type = Type::none;
};

// The digit of a role's random numbers in domain 1 of the random stream, version 1; -1 if it has none: max_exp_avg_sq
// takes the rounded exp_avg_sq.
constexpr int kRoundingDigits[] = {/*param*/ 0,      /*grad*/ -1,           /*exp_avg*/ 1,
                                   /*exp_avg_sq*/ 2, /*max_exp_avg_sq*/ -1,
                                   /*ema*/ 3,        /*param_out*/ 4};
constexpr int kMostRandom = 5;  // arrays of an update that may be rounded by random numbers
// Numbers are made in several blocks of the stream at a time: the first block begins before the first number, and the
// last blocks end after the last one.
constexpr int kMostExtraNumbers = 72;

// The arrays of an update, by their roles: (n) each, disjoint. All but param and grad may be null.
enum Role {
  kParam,
  kGrad,
  kExpAvg,
  kExpAvgSq,
  kMaxExpAvgSq,
  kEma,       // an average of the new param
  kParamOut,  // a copy of it
  kRoles,
  kMomentumBuffer = kExpAvg,
};
static_assert(sizeof kRoundingDigits == kRoles * sizeof(int));

struct UpdateArrays {
  Stored of[kRoles];

  [[gnu::always_inline]] const Stored& operator[](Role role) const { return of[role]; }
};
// The random numbers with which arrays of 16 bits are rounded: (n) each, or null if an array is rounded to nearest.
struct RandomNumbers {
  const uint16_t* of[kRoles] = {};
};

// The types of an update's arrays. Loops are compiled for those that are named, and one for any other. Only `other`
// may have max_exp_avg_sq or ema, and only it and `master` have param_out.
enum class Precision {
  same,      // all are of T
  bfloat16,  // all are of bfloat16
  master,    // param and states are of float32, grad and param_out of bfloat16
  other,
};

// The type of a role's array; none where there is no such array. same: the type that stands for T.
[[gnu::always_inline]] constexpr Type type_in(Precision precision, int role, Type same) {
  if (role == kMaxExpAvgSq || role == kEma || (role == kParamOut && precision != Precision::master))
    return Type::none;
  const bool narrow =
      precision == Precision::bfloat16 || (precision == Precision::master && (role == kGrad || role == kParamOut));
  return narrow ? Type::bfloat16 : same;
}

template <typename T>
struct UpdateScalars {
  T grad_scale;  // negative to maximize
  T ema_decay, one_minus_ema_decay;
};

template <typename T>
struct AdamScalars {
  UpdateScalars<T> common;
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T step_size;  // lr / bias_correction1 * sqrt(bias_correction2)
  T eps_hat;    // eps * sqrt(bias_correction2)
  Decay decay_kind;
  T decay;  // weight_decay, times lr if decoupled
};

template <typename T>
struct SgdScalars {
  UpdateScalars<T> common;
  T lr;
  Momentum momentum_kind;
  T momentum, one_minus_dampening;
  bool nesterov;
  Decay decay_kind;  // none or coupled
  T decay;           // weight_decay
};

// A gradient that is a sum over rows of n (kernels/row_adder.h).
template <typename T>
struct ColumnSum {
  T* total;  // (n), or null if it is not wanted
  T* inner;  // (n): scratch, which may be written even if total is null
};

// The dropout of a branch (rows, n). Its rows are consecutive in the random stream.
template <typename T>
struct BranchDropout {
  uint64_t threshold, key, offset;
  const T* layer_scale;  // (n), or null if the branch is not scaled; never null beside 16-bit elements
  const T* row_scale;    // (rows), or null; only with layer_scale. A factor of 0 drops the row
};

// The residual, z and their gradients: of S; or of float32, if `wide`, which only 16-bit S knows.
template <typename S>
struct DropoutAddNormForward {
  using T = Compute<S>;
  int64_t rows, n;
  BranchDropout<T> dropout;
  const S* x;            // (rows, n)
  const void* residual;  // (rows, n)
  bool wide;
  int64_t residual_step;   // n, or 0 if all rows share one row of the residual
  const T *weight, *bias;  // (n); RMSNorm has no bias
  double eps;
  S* y;          // (rows, n)
  void* z;       // (rows, n), or null
  double* mean;  // (rows), if the norm has a mean
  T* rstd;       // (rows)
  T* scratch;    // two rows, each padded to whole groups of lanes, then norm_scratch<S>(n)
  bool nontemporal;
};

template <typename S>
struct DropoutAddNormBackward {
  using T = Compute<S>;
  int64_t rows, n;
  BranchDropout<T> dropout;
  const S* dy;         // (rows, n)
  const void *dz, *z;  // (rows, n)
  bool wide;
  int64_t dz_step;                            // n, or 0 if all rows share one row of dz
  const double* mean;                         // (rows), if the norm has a mean
  const T *rstd, *weight;                     // (rows), (n)
  const S* x;                                 // (rows, n), or null if there is no dlayer_scale
  S* dx;                                      // (rows, n)
  void* dresidual;                            // (rows, n), or null
  ColumnSum<T> dweight, dbias, dlayer_scale;  // over these rows. RMSNorm has no dbias
  T* scratch;                                 // norm_scratch<S>(n)
  bool nontemporal;  // if true, floats: dx and dresidual have the same offset in a cache line
};

// The elements of a row of parameters, or of a sum over rows: padded to whole groups beside 16-bit S.
template <typename S>
constexpr int64_t parameter_elements(int64_t n) {
  return kHalf<S> ? whole_groups<Compute<S>>(n) : n;
}

// The scratch of the norms' kernels, in elements: two rows beside 16-bit S, else none.
template <typename S>
constexpr int64_t norm_scratch(int64_t n) {
  return kHalf<S> ? 2 * whole_groups<Compute<S>>(n) : 0;
}

// An activation of (rows, n), followed by dropout. It is the backward pass if dy is given.
template <typename S>
struct ActivationDropout {
  using T = Compute<S>;
  Activation activation;
  int64_t rows, n;
  uint64_t threshold, key, offset;
  const S *dy, *x;     // (rows, n); dy is null in the forward pass
  const T* bias;       // (n)
  S* y;                // (rows, n): the result, or dx
  ColumnSum<T> dbias;  // over these rows
  bool nontemporal;
};

constexpr int kMaxAxes = 64;  // of a NumPy array

// The scores x * scale + mask, as (rows, n).
template <typename S>
struct SoftmaxScores {
  using T = Compute<S>;
  int64_t rows, n;
  const S* x;           // (rows, n)
  const void* mask;     // (n): the mask's row for the first row of the array, of S or, if `wide`, of float32
  bool wide;            // only 16-bit S knows it
  const uint8_t* keep;  // (n): likewise, not 0 for a score that is kept; null if all are
  T scale;
  int64_t row;                                 // the index in the array of the first of these rows
  int axes;                                    // of the array, without the last one
  const int64_t* lengths;                      // (axes)
  const int64_t *mask_strides, *keep_strides;  // (axes): in elements (0: broadcast)
  int64_t queries, query;  // if causal: rows per sequence, and the first row's index in its sequence; else 0
  int64_t first_sees;      // if causal: query i of a sequence sees the first first_sees + i keys
};

// The scratch of the softmax kernels, in elements: this many rows, padded to whole groups of lanes, then a byte per
// element of such a row, and as many bytes as a vector may have.
template <typename T>
constexpr int64_t softmax_scratch(int rows, int64_t n) {
  return rows * whole_groups<T>(n) + (whole_groups<T>(n) + kLineBytes) / static_cast<int64_t>(sizeof(T));
}

template <typename S>
struct SoftmaxDropoutForward {
  using T = Compute<S>;
  SoftmaxScores<S> scores;
  uint64_t threshold, key, offset;
  S* y;               // (rows, n)
  T *maximum, *rsum;  // (rows)
  T* scratch;         // softmax_scratch(1, n)
  bool nontemporal;
};

template <typename S>
struct SoftmaxDropoutBackward {
  using T = Compute<S>;
  SoftmaxScores<S> scores;
  uint64_t threshold, key, offset;
  bool from_weights;        // whether scores.x holds the weights; then threshold is 0
  const S* dy;              // (rows, n)
  const T *maximum, *rsum;  // (rows); not read if from_weights
  S* dx;                    // (rows, n)
  T* scratch;               // softmax_scratch(2, n)
  bool nontemporal;
};

// Raw pointers to contiguous arrays, checked by the caller; the kernels' headers give the shapes.
// nontemporal: the result is written past the caches. offset: the first element's position in the random stream.
//
// If S has 16 bits, rows of T are in the order of the vectors and padded to whole groups of lanes: parameters, sums
// over rows, and scratch. to_vectors and from_vectors convert them.
template <typename S>
struct CommonKernels {
  using T = Compute<S>;
  // scratch, here and below: norm_scratch<S>(n).
  void (*layer_norm_forward)(int64_t rows, int64_t n, const S* x, const T* weight, const T* bias, double eps, S* y,
                             double* mean, T* rstd, T* scratch, bool nontemporal);
  // weight: null if there is none, but only of floats.
  void (*layer_norm_backward)(int64_t rows, int64_t n, const S* dy, const S* x, const double* mean, const T* rstd,
                              const T* weight, S* dx, const ColumnSum<T>& dweight, const ColumnSum<T>& dbias,
                              T* scratch, bool nontemporal);
  void (*rms_norm_forward)(int64_t rows, int64_t n, const S* x, const T* weight, double eps, S* y, T* rstd,
                           T* scratch, bool nontemporal);
  void (*rms_norm_backward)(int64_t rows, int64_t n, const S* dy, const S* x, const T* rstd, const T* weight, S* dx,
                            const ColumnSum<T>& dweight, T* scratch, bool nontemporal);
  void (*dropout_add_layer_norm_forward)(const DropoutAddNormForward<S>& arguments);
  void (*dropout_add_layer_norm_backward)(const DropoutAddNormBackward<S>& arguments);
  void (*dropout_add_rms_norm_forward)(const DropoutAddNormForward<S>& arguments);
  void (*dropout_add_rms_norm_backward)(const DropoutAddNormBackward<S>& arguments);
  void (*softmax_dropout_forward)(const SoftmaxDropoutForward<S>& arguments);
  void (*softmax_dropout_backward)(const SoftmaxDropoutBackward<S>& arguments);
  void (*activation_dropout)(const ActivationDropout<S>& arguments);
  void (*relu_dropout_backward)(int64_t rows, int64_t n, const S* dy, const S* y, uint64_t threshold, S* dx,
                                const ColumnSum<T>& dbias, bool nontemporal);
  void (*dropout)(int64_t n, const S* x, uint64_t threshold, uint64_t key, uint64_t offset, S* y, bool nontemporal);
  void (*drop_path)(int64_t rows, int64_t n, const S* x, const uint8_t* kept, T scale, S* y, bool nontemporal);
  // Of x * scale; scale is 1 unless S is double.
  double (*sum_of_squares)(int64_t n, const S* x, double scale);
};

// Those of 16-bit S alone.
template <typename S>
struct HalfKernels {
  void (*widen)(int64_t n, const S* x, float* wide);
  void (*to_vectors)(int64_t n, const S* row, float* vectors);
  void (*floats_to_vectors)(int64_t n, const float32* row, float* vectors);
  void (*from_vectors)(int64_t n, const float* vectors, S* row);
  void (*floats_from_vectors)(int64_t n, const float* vectors, float32* row);
};

// Those of float and double alone.
template <typename T>
struct FloatKernels {
  void (*exponential)(int64_t n, const T* x, T* y);
  void (*dropout_mask)(int64_t n, uint64_t threshold, uint64_t key, uint64_t offset, uint8_t* kept);
  const uint16_t* (*rounding_numbers)(int64_t n, uint64_t key, uint32_t digit, uint64_t first, uint16_t* room);
  // In adam, sgd and all_finite, n is a multiple of update_multiple. The arrays are of T; or if T is float, of any
  // types that are computed in it. random: null if all are rounded to nearest.
  int64_t update_multiple;
  void (*adam)(int64_t n, const UpdateArrays& arrays, const RandomNumbers* random, Precision precision,
               const AdamScalars<T>& scalars);
  void (*sgd)(int64_t n, const UpdateArrays& arrays, const RandomNumbers* random, Precision precision,
              const SgdScalars<T>& scalars);
  bool (*all_finite)(int64_t n, const Stored& x, T scale);  // whether x * scale is
  void (*copy)(int64_t n, const T* source, T* target, bool nontemporal);
  void (*update_loop)(int64_t n, T* param, const T* grad, T* exp_avg, T* exp_avg_sq);
};

template <typename S, bool = kHalf<S>>
struct OtherKernels : HalfKernels<S> {};
template <typename S>
struct OtherKernels<S, false> : FloatKernels<S> {};

template <typename S>
struct Kernels : CommonKernels<S>, OtherKernels<S> {};

}  // namespace pyreg
