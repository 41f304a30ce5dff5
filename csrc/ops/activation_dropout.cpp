#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "dispatch.h"
#include "neutral_rows.h"
#include "ops/ops.h"
#include "row_blocks.h"

namespace pyreg {
namespace {

constexpr int64_t kTile = 1024;  // elements of a row where nothing depends on how long it is

Activation activation_named(const std::string& name) {
  using Named = std::pair<const char*, Activation>;
  for (const auto& [known, activation] : {Named{"relu", Activation::relu}, Named{"silu", Activation::silu},
                                          Named{"gelu", Activation::gelu}, Named{"gelu_tanh", Activation::gelu_tanh}})
    if (name == known) return activation;
  throw py::type_error("_core: no such activation");
}

// The bias, repeated until it is a row that is worth a loop; or a row that changes nothing.
template <typename T>
class TiledBias {
 public:
  TiledBias(const T* bias, int64_t n) : row_(bias), length_(n) {
    if (bias && n >= kTile) return;
    length_ = bias && n > 0 ? kTile / n * n : kTile;
    memory_.reset(new T[length_]);
    if (bias && n > 0)
      for (int64_t i = 0; i < length_; ++i) memory_[i] = bias[i % n];
    else
      std::fill_n(memory_.get(), length_, static_cast<T>(kAddsNothing));
    row_ = memory_.get();
  }

  const T* row() const { return row_; }
  int64_t length() const { return length_; }

 private:
  const T* row_;
  int64_t length_;
  std::unique_ptr<T[]> memory_;
};

// Elementwise: in rows of any length that the bias allows. dy: null in the forward pass.
template <typename T>
void run_elementwise(ActivationDropout<T> a, int64_t size, int64_t bias_size, int64_t bytes) {
  const TiledBias<T> bias(a.bias, bias_size);
  const int64_t n = bias.length();
  const auto kernel = kernels<T>().activation_dropout;
  const int64_t block = std::max<int64_t>(1, block_elements<T>(a.nontemporal) / n) * n;
  parallel_blocks(size, block, bytes, [&](int64_t begin, int64_t end) {
    const auto run = [&](int64_t rows, int64_t row_length, int64_t at) {
      ActivationDropout<T> part = a;
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

// x, y: rows of the bias's n; without a bias, of any length.
void activation_dropout_forward(const std::string& activation, const py::array& x_array,
                                const OptionalArray& bias_array, uint64_t threshold, uint64_t key, uint64_t offset,
                                py::array y_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size(), n = bias_array ? bias_array->size() : 1;
    require(n > 0 ? size % n == 0 : size == 0, "_core: x is not rows of the bias's length");
    const T* x = in<T>(x_array, size);
    T* y = out<T>(y_array, size);
    const int64_t bytes = 2 * size * sizeof(T);
    const ActivationDropout<T> a = {.activation = activation_named(activation),
                                    .rows = 0,
                                    .n = 0,
                                    .threshold = threshold,
                                    .key = key,
                                    .offset = offset,
                                    .dy = nullptr,
                                    .x = x,
                                    .bias = in<T>(bias_array, n),
                                    .y = y,
                                    .dbias = nullptr,
                                    .nontemporal = outgrows_cache(bytes) && y != x};

    const ReleasedGil released;
    run_elementwise(a, size, n, bytes);
  });
}

// dy, x, dx: rows of the bias's n; bias, dbias (n), or neither of them.
void activation_dropout_backward(const std::string& activation, const py::array& dy_array, const py::array& x_array,
                                 const OptionalArray& bias_array, uint64_t threshold, uint64_t key, uint64_t offset,
                                 py::array dx_array, OptionalArray dbias_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size(), n = bias_array ? bias_array->size() : 1;
    require(n > 0 ? size % n == 0 : size == 0, "_core: x is not rows of the bias's length");
    const T *dy = in<T>(dy_array, size), *x = in<T>(x_array, size), *bias = in<T>(bias_array, n);
    T *dx = out<T>(dx_array, size), *dbias = out<T>(dbias_array, n);
    require(!dbias == !bias, "_core: dbias goes with bias");
    const int64_t bytes = 3 * size * sizeof(T);
    const ActivationDropout<T> a = {.activation = activation_named(activation),
                                    .rows = 0,
                                    .n = n,
                                    .threshold = threshold,
                                    .key = key,
                                    .offset = offset,
                                    .dy = dy,
                                    .x = x,
                                    .bias = bias,
                                    .y = dx,
                                    .dbias = nullptr,
                                    .nontemporal = outgrows_cache(bytes) && dx != x && dx != dy};

    const ReleasedGil released;
    if (!bias) return run_elementwise(a, size, n, bytes);
    const int64_t rows = n > 0 ? size / n : 0, blocks = blocks_of(rows, kBackwardBlockRows);
    const BlockSums<T> dbiases(blocks, n, dx);
    const auto kernel = kernels<T>().activation_dropout;
    parallel_blocks(rows, kBackwardBlockRows, bytes, [&](int64_t begin, int64_t end) {
      ActivationDropout<T> part = a;
      part.rows = end - begin, part.offset += begin * n;
      part.x += begin * n, part.dy += begin * n, part.y += begin * n;
      part.dbias = dbiases[begin / kBackwardBlockRows];
      kernel(part);
    });
    dbiases.sum(blocks, dbias);
  });
}

}  // namespace

void bind_activation_dropout(py::module_& m) {
  m.def("activation_dropout_forward", activation_dropout_forward, py::arg("activation"), py::arg("x"),
        py::arg("bias"), py::arg("threshold"), py::arg("key"), py::arg("index"), py::arg("y"));
  m.def("activation_dropout_backward", activation_dropout_backward, py::arg("activation"), py::arg("dy"),
        py::arg("x"), py::arg("bias"), py::arg("threshold"), py::arg("key"), py::arg("index"), py::arg("dx"),
        py::arg("dbias"));
}

}  // namespace pyreg
