// The dropout mask of a whole array, in memory.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "cache.h"
#include "dispatch.h"
#include "parallel.h"

namespace pyreg {

// kept (size): 1 where an element is kept, 0 where it is dropped.
inline void make_whole_mask(const DropoutArguments& dropout, int64_t size, uint8_t* kept) {
  const auto kernel = kernels<float>().dropout_mask;
  const int64_t work = 8 * size;  // a byte of the mask takes about as long as moving eight bytes
  parallel_blocks(size, block_elements<uint8_t>(false), work, [&](int64_t begin, int64_t end) {
    kernel(end - begin, dropout.threshold, dropout.key, dropout.offset + begin, kept + begin);
  });
}

}  // namespace pyreg
