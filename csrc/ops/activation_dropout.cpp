#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "dispatch.h"
#include "functions.h"
#include "parameter_rows.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

const NamedTuple backward_result("ActivationDropoutBackward");

Activation activation_named(std::string_view name) {
  if (name == "relu") return Activation::relu;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  throw py::type_error("_core: no such activation");
}

// The bias as a row long enough to be worth a loop: a short one is repeated. Without a bias, a neutral row.
template <typename S>
class TiledBias {
 public:
  explicit TiledBias(const Array& bias) : length_(tiled_length(bias)) {
    Array tiled = bias;
    if (bias.size == 0) {
      tiled = {};
    } else if (length_ > bias.size) {
      const int64_t bytes = length_ * (bias.bytes / bias.size);
      memory_.reset(new char[bytes]);
      std::copy_n(bias.as<const char>(), bias.bytes, &memory_[0]);
      for (int64_t at = bias.bytes; at < bytes; at *= 2)
        std::copy_n(&memory_[0], std::min(at, bytes - at), &memory_[at]);
      tiled.data = memory_.get();
    }
    row_.emplace(tiled, length_, kAddsNothing);
  }

  const Compute<S>* row() const { return row_->get(); }
  int64_t length() const { return length_; }

 private:
  static int64_t tiled_length(const Array& bias) {
    const int64_t n = bias.size;
    return n == 0 ? kShortRow : 2 * n <= kShortRow ? kShortRow / n * n : n;
  }

  int64_t length_;
  std::unique_ptr<char[]> memory_;
  std::optional<ParameterRow<S>> row_;
};

// Elementwise, in rows of any length that suits the bias. dy is null in the forward pass.
template <typename S>
void run_elementwise(ActivationDropout<S> a, int64_t size, const Array& given_bias, int64_t bytes) {
  const TiledBias<S> bias(given_bias);
  const int64_t n = bias.length();
  const auto kernel = kernels<S>().activation_dropout;
  const int64_t block = std::max<int64_t>(1, block_elements<S>(a.nontemporal) / n) * n;
  parallel_blocks(size, block, bytes, [&](int64_t begin, int64_t end) {
    const auto run = [&](int64_t rows, int64_t row_length, int64_t at) {
      ActivationDropout<S> part = a;
      part.rows = rows, part.n = row_length, part.offset += at;
      part.x += at, part.y += at, part.bias = bias.row();
      if (part.dy) part.dy += at;
      kernel(part);
    };
    const int64_t rows = (end - begin) / n, rest = (end - begin) % n;
    if (rows > 0) run(rows, n, begin);
    if (rest > 0) run(1, rest, end - rest);
  });
}

// The bias must have the length of x's last axis.
void require_bias(Arguments& a, const Array& x, const Array& bias) {
  if (!bias) return;
  a.require(x.axes > 0);
  if (x.axes > 0) a.require_shape(bias, 1, x.shape + x.axes - 1);
}

// Arguments: the activation, then those of its public function. x, y: rows of n, the length of the bias; without a
// bias, of any length.
Reference forward(Arguments& a) {
  const std::string_view activation = a.text();
  const Array x = a.array(), bias = a.optional_parameter();
  require_bias(a, x, bias);
  const DropoutArguments dropout = a.dropout_in_training(x.size);
  const Array out = a.out({x}, {bias});
  if (!a.good()) return {};

  const Activation which = activation_named(activation);
  Result y = result(out, x);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    const int64_t bytes = 2 * x.bytes;
    const ActivationDropout<S> all = {.activation = which,
                                      .rows = 0,
                                      .n = 0,
                                      .threshold = dropout.threshold,
                                      .key = dropout.key,
                                      .offset = dropout.offset,
                                      .dy = nullptr,
                                      .x = x.as<S>(),
                                      .bias = nullptr,
                                      .y = y.as<S>(),
                                      .dbias = {},
                                      .nontemporal = outgrows_cache(bytes) && !y.replaces({x})};
    const ReleasedGil released;
    run_elementwise(all, x.size, bias, bytes);
  });
  return std::move(y.reference);
}

// The gradient of ReLU from y, in rows of any length if there is no bias.
template <typename S>
void relu_backward(const Array& dy, const Array& y, uint64_t threshold, const Result& dx,
                   const ParameterGradient<S>& dbias, int64_t n, bool nontemporal) {
  const int64_t bytes = 3 * y.bytes;
  const auto kernel = kernels<S>().relu_dropout_backward;
  if (!dbias.total())
    return parallel_blocks(y.size, block_elements<S>(nontemporal), bytes, [&](int64_t begin, int64_t end) {
      kernel(1, end - begin, dy.as<S>() + begin, y.as<S>() + begin, threshold, dx.as<S>() + begin, {}, nontemporal);
    });
  sum_over_rows<S>(n > 0 ? y.size / n : 0, n, bytes, dx, {&dbias}, 0,
                   [&](int64_t begin, int64_t end, auto& sums, Compute<S>*) {
                     kernel(end - begin, n, dy.as<S>() + begin * n, y.as<S>() + begin * n, threshold,
                            dx.as<S>() + begin * n, sums[0], nontemporal);
                   });
}

// The same for the gradient. dy, x, y, dx: rows of n, the length of the bias. bias, dbias: both (n), or both missing.
// kRelu: takes either x or y, and no name of an activation.
template <bool kRelu>
Reference backward(Arguments& a) {
  const std::string_view activation = kRelu ? "relu" : a.text();
  const Array dy = a.array(), given_x = kRelu ? a.optional_array() : a.array(), bias = a.optional_parameter(),
              y = kRelu ? a.optional_array() : Array{};
  a.require(bool{given_x} != bool{y});
  const Array& x = y ? y : given_x;
  a.require_shape(dy, x);
  require_bias(a, x, bias);
  const DropoutArguments dropout = y ? a.dropout_without_mask(x.size) : a.dropout(x.size);
  const Array out = a.out({x, dy}, {bias});
  if (!a.good()) return {};

  const Activation which = activation_named(activation);
  Result dx = result(out, x), dbias = gradient_of(bias);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    const int64_t n = bias.size, bytes = 3 * x.bytes;
    const bool nontemporal = outgrows_cache(bytes) && !dx.replaces({x, dy});
    const ReleasedGil released;
    const ParameterGradient<S> dbiases(dbias, bias, n);
    if (y) return relu_backward<S>(dy, y, dropout.threshold, dx, dbiases, n, nontemporal);
    const ActivationDropout<S> all = {.activation = which,
                                      .rows = 0,
                                      .n = n,
                                      .threshold = dropout.threshold,
                                      .key = dropout.key,
                                      .offset = dropout.offset,
                                      .dy = dy.as<S>(),
                                      .x = x.as<S>(),
                                      .bias = nullptr,
                                      .y = dx.as<S>(),
                                      .dbias = {},
                                      .nontemporal = nontemporal};
    if (!bias) return run_elementwise(all, x.size, bias, bytes);
    const auto kernel = kernels<S>().activation_dropout;
    const ParameterRow<S> biases(bias, n, kAddsNothing);
    sum_over_rows<S>(n > 0 ? x.size / n : 0, n, bytes, dx, {&dbiases}, 0,
                     [&](int64_t begin, int64_t end, auto& sums, Compute<S>*) {
                       ActivationDropout<S> part = all;
                       part.rows = end - begin, part.offset += begin * n;
                       part.x += begin * n, part.dy += begin * n, part.y += begin * n;
                       part.bias = biases.get(), part.dbias = sums[0];
                       kernel(part);
                     });
  });
  return backward_result.of({&dx, &dbias});
}

const Functions functions{named<forward>("activation_dropout_forward"),
                          named<backward<false>>("activation_dropout_backward"),
                          named<backward<true>>("relu_dropout_backward")};

}  // namespace
}  // namespace pyreg
