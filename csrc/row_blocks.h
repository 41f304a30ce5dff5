// How the rows of a normalisation are cut into blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "cache.h"
#include "parallel.h"

namespace pyreg {

// Rows of n of a forward pass that are a block, for a result whose stores are nontemporal or not.
template <typename T>
int64_t forward_block_rows(int64_t n, bool nontemporal) {
  return std::max<int64_t>(1, block_elements<T>(nontemporal) / std::max<int64_t>(1, n));
}

// Part of the result: the gradients of weight and bias are summed over this many rows, then over the blocks of rows.
constexpr int64_t kBackwardBlockRows = 64;

// (blocks, n): the sums of each block of rows.
template <typename T>
class BlockSums {
 public:
  // No two blocks share a line, or a pair of lines, which are fetched together: two threads would take it from each
  // other row after row. A block starts where `like` does within its pair, so that one alignment serves
  // both where rows are whole lines.
  BlockSums(int64_t blocks, int64_t n, const T* like)
      : n_(n), stride_((n + 2 * kPair - 1) / kPair * kPair), memory_(new T[blocks * stride_ + kPair]) {
    const auto misalignment = [](const T* p) {
      return reinterpret_cast<uintptr_t>(p) / sizeof(T) % kPair;
    };
    first_ = memory_.get() + (misalignment(like) - misalignment(memory_.get()) + kPair) % kPair;
  }

  T* operator[](int64_t block) const { return first_ + block * stride_; }

  // Summed over the blocks in order, in double, into total (n).
  void sum(int64_t blocks, T* total) const {
    parallel_blocks(n_, kColumnBlock, blocks * n_ * sizeof(T), [=, this](int64_t begin, int64_t end) {
      double column[kColumnBlock] = {};
      for (int64_t block = 0; block < blocks; ++block)
        for (int64_t i = begin; i < end; ++i) column[i - begin] += static_cast<double>((*this)[block][i]);
      for (int64_t i = begin; i < end; ++i) total[i] = static_cast<T>(column[i - begin]);
    });
  }

 private:
  static constexpr int64_t kColumnBlock = 1024;
  static constexpr int64_t kPair = 128 / sizeof(T);  // elements of a pair of lines

  int64_t n_, stride_;
  std::unique_ptr<T[]> memory_;
  T* first_;
};

constexpr int64_t kLineBytes = 64;

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
