// How rows are cut into blocks, and the memory that the blocks work in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "cache.h"
#include "kernels/table.h"
#include "parallel.h"

namespace pyreg {

// Rows of n of a forward pass that are a block, for a result whose stores are nontemporal or not.
template <typename T>
int64_t forward_block_rows(int64_t n, bool nontemporal) {
  return std::max<int64_t>(1, block_elements<T>(nontemporal) / std::max<int64_t>(1, n));
}

// Part of the result: the gradients of weight and bias are summed over this many rows, then over the blocks of rows.
constexpr int64_t kBackwardBlockRows = 64;

// The sums over rows of n that are a gradient: block by block into memory of their own, and then over the blocks.
template <typename T>
class BlockSums {
 public:
  // total (n): the gradient, or null where it is not wanted. The sums of a single block are the gradient.
  //
  // No two blocks share a line, or a pair of lines, which are fetched together: two threads would take it from each
  // other row after row. A block starts where `like` does within its pair, so that one alignment serves
  // both where rows are whole lines.
  BlockSums(int64_t blocks, int64_t n, const T* like, T* total)
      : blocks_(blocks), n_(n), stride_((n + 2 * kPair - 1) / kPair * kPair), total_(total), first_(total) {
    if (blocks == 0 || (blocks == 1 && total)) return;
    const auto misalignment = [](const T* p) {
      return reinterpret_cast<uintptr_t>(p) / sizeof(T) % kPair;
    };
    memory_.reset(new T[blocks * stride_ + kPair]);
    first_ = memory_.get() + (misalignment(like) - misalignment(memory_.get()) + kPair) % kPair;
  }

  // Where the sums of a block of rows go: (n).
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
  static constexpr int64_t kPair = 128 / sizeof(T);  // elements of a pair of lines

  int64_t blocks_, n_, stride_;
  T *total_, *first_;
  std::unique_ptr<T[]> memory_;
};

template <typename T>
int64_t place_in_line(const T* p) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kLineBytes / sizeof(T));
}

// parallel_blocks, with memory for each thread: body(begin, end, scratch), of so many elements from the start of a
// line on. All of it is had before the first block, so that an error leaves every array as it was.
template <typename T, typename Body>
void parallel_blocks_with_scratch(int64_t n, int64_t size, int64_t bytes, int64_t elements, Body body) {
  constexpr int64_t kLine = kLineBytes / sizeof(T);
  const int64_t stride = (elements + 2 * kLine - 1) / kLine * kLine;  // lines are fetched in pairs
  int threads = threads_for(blocks_of(n, size), bytes);
  constexpr int64_t kOnStack = 2048;  // elements: a small call need not ask for memory
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
