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

}  // namespace

int64_t count_blocks(const std::vector<Array>& arrays) {
  int64_t blocks = 0;
  for (const Array& array : arrays) blocks += blocks_of(array.size, kSquaresBlock);
  return blocks;
}

void sum_squares(const std::vector<Array>& arrays, Beyond beyond, double* sums) {
  std::vector<int64_t> first_blocks;
  int64_t blocks = 0, bytes = 0;
  for (const Array& array : arrays) {
    first_blocks.push_back(blocks);
    blocks += blocks_of(array.size, kSquaresBlock);
    bytes += array.bytes;
  }
  const ReleasedGil released;
  parallel_blocks(blocks, 1, bytes, [&](int64_t block, int64_t) {
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
