#include <algorithm>
#include <cstdint>
#include <memory>

#include "cache.h"
#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// x, y: `samples` rows. offset: that of the first sample in the nontemporal, of which each is one element.
void drop_path(const py::array& x_array, int64_t samples, uint64_t threshold, uint64_t key, uint64_t offset,
               py::array y_array) {
  with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    require(samples > 0 ? size % samples == 0 : size == 0, "_core: x is not that many samples");
    const T* x = in<T>(x_array, size);
    T* y = out<T>(y_array, size);

    const ReleasedGil released;
    if (size == 0) return;
    const std::unique_ptr<uint8_t[]> kept(new uint8_t[samples]);
    const auto mask = kernels<T>().dropout_mask;
    parallel_blocks(samples, block_elements<uint8_t>(false), 8 * samples, [&](int64_t begin, int64_t end) {
      mask(end - begin, threshold, key, offset + begin, &kept[begin]);
    });
    const double keep = 0x1p32 - static_cast<double>(threshold);
    const T scale = keep > 0 ? static_cast<T>(0x1p32 / keep) : T{0};

    // A sample is cut into pieces of a block, and small ones are taken together.
    const auto kernel = kernels<T>().drop_path;
    const int64_t bytes = 2 * size * sizeof(T), n = size / samples;
    const bool nontemporal = outgrows_cache(bytes) && y != x;
    const int64_t block = block_elements<T>(nontemporal);
    const int64_t pieces = blocks_of(n, block);
    parallel_blocks(samples * pieces, std::max<int64_t>(1, block / n), bytes, [&](int64_t begin, int64_t end) {
      if (pieces == 1) return kernel(end - begin, n, x + begin * n, &kept[begin], scale, y + begin * n, nontemporal);
      const int64_t sample = begin / pieces, first = begin % pieces * block;
      const int64_t at = sample * n + first;
      kernel(1, std::min(block, n - first), x + at, &kept[sample], scale, y + at, nontemporal);
    });
  });
}

}  // namespace

void bind_drop_path(py::module_& m) {
  m.def("drop_path", drop_path, py::arg("x"), py::arg("samples"), py::arg("threshold"), py::arg("key"),
        py::arg("index"), py::arg("y"));
}

}  // namespace pyreg
