#include <vector>

#include "dispatch.h"
#include "ops/ops.h"
#include "parallel.h"

namespace pyreg {
namespace {

// Part of the result: elements summed together, before the sums are added in order.
constexpr int64_t kBlock = 16 * 1024;

double sum_of_squares(const py::array& x_array) {
  return with_dtype(x_array, [&](auto zero) {
    using T = decltype(zero);
    const int64_t size = x_array.size();
    const T* x = in<T>(x_array, size);

    const ReleasedGil released;
    const auto kernel = kernels<T>().l2_penalty;
    std::vector<double> sums(blocks_of(size, kBlock));
    parallel_blocks(size, kBlock, size * sizeof(T),
                    [&](int64_t begin, int64_t end) { sums[begin / kBlock] = kernel(end - begin, x + begin); });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
  });
}

}  // namespace

void bind_l2_penalty(py::module_& m) { m.def("sum_of_squares", sum_of_squares, py::arg("x")); }

}  // namespace pyreg
