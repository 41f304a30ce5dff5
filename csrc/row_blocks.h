// How rows are divided into blocks, and the memory that the blocks use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "cache.h"
#include "kernels/table.h"
#include "parallel.h"

namespace pyreg {

// Rows of n per block of a forward pass. nontemporal: the result is written past the caches.
template <typename T>
int64_t forward_block_rows(int64_t n, bool nontemporal) {
  return std::max<int64_t>(1, block_elements<T>(nontemporal) / std::max<int64_t>(1, n));
}

// Rows per block of a backward pass. Results depend on it: the gradients of weight and bias are summed over the rows
// of a block, then over the blocks.
constexpr int64_t kBackwardBlockRows = 64;

// A gradient that is a sum over rows of n. Each block sums into memory of its own; then the blocks are summed.
template <typename T>
class BlockSums {
 public:
  // total (n): the gradient, or null if it is not wanted. A single block sums directly into total.
  //
  // No two blocks share a cache line, or a pair of lines, because lines are fetched in pairs: two threads would take
  // it from each other at every row. A block has the same offset within its pair as `like`. If rows are whole lines,
  // aligning a loop for one then aligns it for both.
  BlockSums(int64_t blocks, int64_t n, const T* like, T* total)
      : blocks_(blocks), n_(n), stride_((n + 2 * kPair - 1) / kPair * kPair), total_(total), first_(total) {
    if (blocks == 0 || (blocks == 1 && total)) return;
    const auto misalignment = [](const T* p) {
      return reinterpret_cast<uintptr_t>(p) / sizeof(T) % kPair;
    };
    memory_.reset(new T[blocks * stride_ + kPair]);
    first_ = memory_.get() + (misalignment(like) - misalignment(memory_.get()) + kPair) % kPair;
  }

  // Where a block of rows puts its sums: (n).
  T* operator[](int64_t block) const { return first_ ? first_ + block * stride_ : nullptr; }

  // Sums the blocks in order, in double.
  void finish() const {
    if (!total_) return;
    if (blocks_ == 0) std::fill_n(total_, n_, T{0});
    if (first_ == total_) return;
    parallel_blocks(n_, kColumnBlock, blocks_ * n_ * sizeof(T), [this](int64_t begin, int64_t end) {
      double column[kColumnBlock] = {};
      for (int64_t block = 0; block < blocks_; ++block)
        for (int64_t i = begin; i < end; ++i) column[i - begin] += static_cast<double>((*this)[block][i]);
      for (int64_t i = begin; i < end; ++i) total_[i] = static_cast<T>(column[i - begin]);
    });
  }

 private:
  static constexpr int64_t kColumnBlock = 1024;
  static constexpr int64_t kPair = 128 / sizeof(T);  // elements per pair of lines

  int64_t blocks_, n_, stride_;
  T *total_, *first_;
  std::unique_ptr<T[]> memory_;
};

template <typename T>
int64_t place_in_line(const T* p) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kLineBytes / sizeof(T));
}

// parallel_blocks with scratch memory for each thread: body(begin, end, scratch). The scratch is `elements` long and
// starts on a cache line. All of it is allocated before the first block, so an error leaves every array unchanged.
template <typename T, typename Body>
void parallel_blocks_with_scratch(int64_t n, int64_t size, int64_t bytes, int64_t elements, Body body) {
  if (n == 0) return;
  constexpr int64_t kLine = kLineBytes / sizeof(T);
  const int64_t stride = (elements + 2 * kLine - 1) / kLine * kLine;  // one spare line: lines are fetched in pairs
  int threads = threads_for(blocks_of(n, size), bytes);
  constexpr int64_t kOnStack = 2048;  // elements; small calls allocate nothing
  if (threads == 1 && elements <= kOnStack) {
    alignas(kLineBytes) T scratch[kOnStack];
    return parallel_blocks(1, n, size, bytes, [&](int64_t begin, int64_t end, int) { body(begin, end, scratch); });
  }
  std::unique_ptr<T[]> memory(new (std::nothrow) T[threads * stride + kLine]);
  if (!memory) {
    threads = 1;
    memory.reset(new T[stride + kLine]);
  }
  T* const first = memory.get() + (kLine - place_in_line(memory.get())) % kLine;
  parallel_blocks(threads, n, size, bytes,
                  [&](int64_t begin, int64_t end, int thread) { body(begin, end, first + thread * stride); });
}

}  // namespace pyreg
