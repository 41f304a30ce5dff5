// Compiled once for each instruction-set level, with the level's flags and with PYREG_LEVEL set to its name.
//
// Only the two tables may be visible outside this translation unit. The linker merges weak symbols of the same name,
// so a processor without this level's instructions could get this level's version of a function. Therefore the
// kernels are in anonymous namespaces and use nothing of the standard library that could be emitted out of line.
// tests/test_isa_isolation.py checks the built module for this.
#include "kernels/table.h"

#include "kernels/activation_dropout.h"
#include "kernels/adam.h"
#include "kernels/copy.h"
#include "kernels/drop_path.h"
#include "kernels/dropout.h"
#include "kernels/dropout_add_norm.h"
#include "kernels/elementary.h"
#include "kernels/l2_penalty.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/sgd.h"
#include "kernels/softmax_dropout.h"

#define PYREG_PASTE(a, b) a##b
#define PYREG_NAME(prefix, level) PYREG_PASTE(prefix, level)

namespace pyreg {
namespace {

template <typename T>
constexpr Kernels<T> kTable = {
    .layer_norm_forward = layer_norm_forward<T>,
    .layer_norm_backward = layer_norm_backward<T>,
    .rms_norm_forward = rms_norm_forward<T>,
    .rms_norm_backward = rms_norm_backward<T>,
    .dropout_add_layer_norm_forward = dropout_add_layer_norm_forward<T>,
    .dropout_add_layer_norm_backward = dropout_add_layer_norm_backward<T>,
    .dropout_add_rms_norm_forward = dropout_add_rms_norm_forward<T>,
    .dropout_add_rms_norm_backward = dropout_add_rms_norm_backward<T>,
    .softmax_dropout_forward = softmax_dropout_forward<T>,
    .softmax_dropout_backward = softmax_dropout_backward<T>,
    .activation_dropout = activation_dropout<T>,
    .relu_dropout_backward = relu_dropout_backward<T>,
    .exponential = exponential<T>,
    .dropout = dropout<T>,
    .drop_path = drop_path<T>,
    .dropout_mask = dropout_mask,
    .adam = adam<T>,
    .sgd = sgd<T>,
    .copy = copy<T>,
    .update_loop = update_loop<T>,
    .l2_penalty = l2_penalty<T>,
};

}  // namespace

extern const Kernels<float> PYREG_NAME(f32_, PYREG_LEVEL);
extern const Kernels<double> PYREG_NAME(f64_, PYREG_LEVEL);
const Kernels<float> PYREG_NAME(f32_, PYREG_LEVEL) = kTable<float>;
const Kernels<double> PYREG_NAME(f64_, PYREG_LEVEL) = kTable<double>;

}  // namespace pyreg
