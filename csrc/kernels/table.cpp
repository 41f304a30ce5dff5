// Compiled once for each instruction-set level, with the level's flags and with PYREG_LEVEL set to its name.
//
// Only the tables may be visible outside this translation unit. The linker merges weak symbols of the same name,
// so a processor without this level's instructions could get this level's version of a function. Therefore the
// kernels are in anonymous namespaces and use nothing of the standard library that could be emitted out of line.
// tests/test_isa_isolation.py checks the built module for this.
#include "kernels/table.h"

#include "kernels/activation_dropout.h"
#include "kernels/adam.h"
#include "kernels/all_finite.h"
#include "kernels/copy.h"
#include "kernels/drop_path.h"
#include "kernels/dropout.h"
#include "kernels/dropout_add_norm.h"
#include "kernels/elementary.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/sgd.h"
#include "kernels/softmax_dropout.h"
#include "kernels/stochastic_rounding.h"
#include "kernels/sum_of_squares.h"

#define PYREG_PASTE(a, b) a##b
#define PYREG_NAME(prefix, level) PYREG_PASTE(prefix, level)

namespace pyreg {
namespace {

template <typename S>
constexpr CommonKernels<S> kCommon = {
    .layer_norm_forward = layer_norm_forward<S>,
    .layer_norm_backward = layer_norm_backward<S>,
    .rms_norm_forward = rms_norm_forward<S>,
    .rms_norm_backward = rms_norm_backward<S>,
    .dropout_add_layer_norm_forward = dropout_add_layer_norm_forward<S>,
    .dropout_add_layer_norm_backward = dropout_add_layer_norm_backward<S>,
    .dropout_add_rms_norm_forward = dropout_add_rms_norm_forward<S>,
    .dropout_add_rms_norm_backward = dropout_add_rms_norm_backward<S>,
    .softmax_dropout_forward = softmax_dropout_forward<S>,
    .softmax_dropout_backward = softmax_dropout_backward<S>,
    .activation_dropout = activation_dropout<S>,
    .relu_dropout_backward = relu_dropout_backward<S>,
    .dropout = dropout<S>,
    .drop_path = drop_path<S>,
    .sum_of_squares = sum_of_squares<S>,
};

template <typename T>
constexpr FloatKernels<T> kOfFloats = {
    .exponential = exponential<T>,
    .dropout_mask = dropout_mask,
    .rounding_numbers = rounding_numbers,
    .update_multiple = TwoVectors<T>::kCount,
    .adam = adam<T>,
    .sgd = sgd<T>,
    .all_finite = all_finite<T>,
    .copy = copy<T>,
    .update_loop = update_loop<T>,
};

template <typename S>
constexpr HalfKernels<S> kOfHalves = {
    .widen = widen_elements<S>,
    .to_vectors = to_vectors<S, S>,
    .floats_to_vectors = to_vectors<S, float32>,
    .from_vectors = from_vectors<S, S>,
    .floats_from_vectors = from_vectors<S, float32>,
};

// csrc/model.h has room for so much.
static_assert(TwoVectors<float>::kCount * sizeof(float) <= kGroupBytes);

}  // namespace

#define TABLE(S, prefix, other)                            \
  extern const Kernels<S> PYREG_NAME(prefix, PYREG_LEVEL); \
  const Kernels<S> PYREG_NAME(prefix, PYREG_LEVEL) = {kCommon<S>, {other<S>}};
TABLE(float, f32_, kOfFloats)
TABLE(double, f64_, kOfFloats)
TABLE(float16, f16_, kOfHalves)
TABLE(bfloat16, bf16_, kOfHalves)

}  // namespace pyreg
