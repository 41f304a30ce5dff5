#include "cache.h"
#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// offset: the place of the first element in the random stream.
void dropout(const py::array& x_array, uint64_t threshold, uint64_t key, uint64_t offset, py::array y_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    const T* x = in<T>(x_array, size);
    T* y = out<T>(y_array, size);

    const ReleasedGil released;
    const auto kernel = kernels<T>().dropout;
    const int64_t bytes = 2 * size * sizeof(T);
    const bool nontemporal = outgrows_cache(bytes) && y != x;
    const int64_t block = block_elements<T>(nontemporal);
    parallel_blocks(size, block, bytes, [=](int64_t begin, int64_t end) {
      kernel(end - begin, x + begin, threshold, key, offset + begin, y + begin, nontemporal);
    });
  });
}

void dropout_mask(py::array kept_array, uint64_t threshold, uint64_t key, uint64_t offset) {
  const int64_t size = kept_array.size();
  auto* kept = reinterpret_cast<uint8_t*>(out<bool>(kept_array, size));

  const ReleasedGil released;
  const auto kernel = kernels<float>().dropout_mask;
  const int64_t work = 8 * size;  // a byte of a mask takes about as long as moving eight
  parallel_blocks(size, block_elements<uint8_t>(false), work, [=](int64_t begin, int64_t end) {
    kernel(end - begin, threshold, key, offset + begin, kept + begin);
  });
}

}  // namespace

void bind_dropout(py::module_& m) {
  m.def("dropout", dropout, py::arg("x"), py::arg("threshold"), py::arg("key"), py::arg("index"), py::arg("y"));
  m.def("dropout_mask", dropout_mask, py::arg("kept"), py::arg("threshold"), py::arg("key"), py::arg("index"));
}

}  // namespace pyreg
