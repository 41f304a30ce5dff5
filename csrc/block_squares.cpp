#include "block_squares.h"

#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "parallel.h"

namespace pyreg {
namespace {

template <typename S>
double sum_of_block(int64_t n, const S* x, Beyond beyond) {
  const auto kernel = kernels<S>().sum_of_squares;
  const double sum = kernel(n, x, 1);
  if (beyond == Beyond::infinite || !std::isinf(sum)) return sum;
  const double smaller = kernel(n, x, kScaleDown);
  return std::isfinite(smaller) ? -smaller : sum;
}

// The place of each array's first block among all blocks, then the number of all blocks.
std::vector<int64_t> first_blocks_of(const std::vector<Array>& arrays) {
  std::vector<int64_t> first_blocks = {0};
  for (const Array& array : arrays)
    first_blocks.push_back(first_blocks.back() + blocks_of(array.size, kSquaresBlock));
  return first_blocks;
}

}  // namespace

int64_t count_blocks(const std::vector<Array>& arrays) { return first_blocks_of(arrays).back(); }

void sum_squares(const std::vector<Array>& arrays, Beyond beyond, double* sums) {
  const std::vector<int64_t> first_blocks = first_blocks_of(arrays);
  int64_t bytes = 0;
  for (const Array& array : arrays) bytes += array.bytes;
  const ReleasedGil released;
  parallel_blocks(first_blocks.back(), 1, bytes, [&](int64_t block, int64_t) {
    const auto first = std::upper_bound(first_blocks.begin(), first_blocks.end(), block) - 1;
    const Array& x = arrays[first - first_blocks.begin()];
    const int64_t begin = (block - *first) * kSquaresBlock, n = std::min(kSquaresBlock, x.size - begin);
    sums[block] = with_dtype(x, [&](auto zero) {
      using S = decltype(zero);
      return sum_of_block(n, x.as<S>() + begin, beyond);
    });
  });
}

}  // namespace pyreg
