#include <algorithm>
#include <numeric>

#include "functions.h"
#include "half_elements.h"
#include "parallel.h"

namespace pyreg {
namespace {

const NamedTuple rows_gradient("RowsGradient");

// Row r of the result is the sum of rows order[starts[r]], ..., order[starts[r + 1] - 1] of x, in this order.
struct Sums {
  std::vector<int64_t> order, starts;
  int64_t n;

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }

  template <typename S>
  void run(const S* x, S* sum, int64_t begin, int64_t end) const {
    using T = Compute<S>;
    constexpr int64_t kPart = 256;
    T total[kPart];
    for (int64_t row = begin; row < end; ++row)
      for (int64_t at = 0; at < n; at += kPart) {
        const int64_t length = std::min(kPart, n - at);
        std::fill_n(total, length, T{-0.0});  // which changes nothing that is added to it
        for (int64_t k = starts[row]; k < starts[row + 1]; ++k)
          for (int64_t i = 0; i < length; ++i) total[i] += widened(x[order[k] * n + at + i]);
        for (int64_t i = 0; i < length; ++i) sum[row * n + at + i] = narrowed<S>(total[i]);
      }
  }
};

Reference sum_duplicate_rows(Arguments& a) {
  const std::vector<int64_t> rows = a.indices_of(a.object());
  const Array grad = a.array_of(a.object(), Type::none);
  const auto count = static_cast<int64_t>(rows.size());
  a.require(grad.axes > 0 && grad.shape[0] == count);
  if (!a.good()) return {};

  Sums sums = {std::vector<int64_t>(count), {}, count > 0 ? grad.size / count : 0};
  std::iota(sums.order.begin(), sums.order.end(), int64_t{0});
  std::stable_sort(sums.order.begin(), sums.order.end(), [&](int64_t i, int64_t j) { return rows[i] < rows[j]; });
  for (int64_t k = 0; k < count; ++k)
    if (k == 0 || rows[sums.order[k - 1]] != rows[sums.order[k]]) sums.starts.push_back(k);
  sums.starts.push_back(count);

  Result indices = new_indices(sums.count());
  for (int64_t row = 0; row < sums.count(); ++row) indices.as<int64_t>()[row] = rows[sums.order[sums.starts[row]]];
  std::vector<Py_ssize_t> shape(grad.shape, grad.shape + grad.axes);
  shape[0] = sums.count();
  Array like = grad;
  like.shape = shape.data();
  Result sum = result({}, like);
  with_dtype(grad, [&](auto zero) {
    using S = decltype(zero);
    const ReleasedGil released;
    const int64_t block = std::max<int64_t>(1, block_elements<S>(false) / std::max<int64_t>(1, sums.n));
    parallel_blocks(sums.count(), block, 2 * grad.bytes,
                    [&](int64_t begin, int64_t end) { sums.run(grad.as<S>(), sum.as<S>(), begin, end); });
  });
  return rows_gradient.of({&indices, &sum});
}

const Functions functions{named<sum_duplicate_rows>("sum_duplicate_rows")};

}  // namespace
}  // namespace pyreg
