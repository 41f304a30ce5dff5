// How rows are divided into blocks, and the memory that the blocks use.
#pragma once

#include <algorithm>
#include <cstddef>
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

template <typename T>
int64_t place_in_line(const T* p) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % kLineBytes / sizeof(T));
}

// The first element from p on that starts a cache line.
template <typename T>
T* line_from(T* p) {
  return p + (line_elements<T>() - place_in_line(p)) % line_elements<T>();
}

// parallel_blocks with scratch memory for each thread: body(begin, end, scratch). The scratch is `elements` long and
// starts on a cache line. All of it is allocated before the first block, so an error leaves every array unchanged.
template <typename T, typename Body>
void parallel_blocks_with_scratch(int64_t n, int64_t size, int64_t bytes, int64_t elements, Body body) {
  if (n == 0) return;
  // A processor that walks through memory fetches lines beyond what it uses. If they are another thread's scratch,
  // the two take them from each other: with only a line between them, layer_norm_backward took 15 % longer.
  constexpr int64_t kBeyond = 2048 / sizeof(T);
  const int64_t stride = whole_lines<T>(elements) + kBeyond;
  int threads = threads_for(blocks_of(n, size), bytes);
  constexpr int kOnStack = 4096;  // elements; small calls allocate nothing
  alignas(kLineBytes) T on_stack[kOnStack];
  T* first = on_stack;
  std::unique_ptr<T[]> memory;
  if (threads > 1 || elements > kOnStack) {
    memory.reset(new (std::nothrow) T[threads * stride + line_elements<T>()]);
    if (!memory) {
      threads = 1;
      memory.reset(new T[stride + line_elements<T>()]);
    }
    first = line_from(memory.get());
  }
  parallel_blocks(threads, n, size, bytes,
                  [&](int64_t begin, int64_t end, int thread) { body(begin, end, first + thread * stride); });
}

// Rows per block of a backward pass. Results depend on it: gradients that are sums over rows are summed over the rows
// of a block (kernels/row_adder.h), then over the blocks.
constexpr int64_t kBackwardBlockRows = 64;

// A gradient that is a sum over rows of n. Each block sums into memory of its own; then the blocks are summed.
template <typename T>
class BlockSums {
 public:
  BlockSums() = default;
  // total (n): the gradient, or null if it is not wanted. A single block sums directly into total; several have their
  // sums `place` elements after the start of a cache line.
  BlockSums(int64_t blocks, int64_t n, T* total, int64_t place)
      : blocks_(blocks), n_(n), total_(total), first_(total) {
    if (!total || blocks <= 1) return;
    distance_ = whole_lines<T>(n) + 2 * line_elements<T>();
    memory_.reset(new T[2 * line_elements<T>() + blocks * distance_]);
    first_ = line_from(memory_.get()) + place;
  }

  // Where a block of rows puts its sums: (n).
  T* operator[](int64_t block) const { return first_ ? first_ + block * distance_ : nullptr; }

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

  int64_t blocks_ = 0, n_ = 0;
  // Between the blocks' sums. No two share a pair of lines, which are fetched together. More made no difference: a
  // block's sums are used for a fraction of its rows.
  int64_t distance_ = 0;
  T *total_ = nullptr, *first_ = nullptr;
  std::unique_ptr<T[]> memory_;
};

// A backward pass over `rows` rows, in blocks, with gradients that are sums over rows of n (0 if there are none):
// body(begin, end, sums, rest), where sums[i] is the sum over a block for totals[i]. Null in totals: not wanted. Then
// sums over the blocks. rest: `more` elements of scratch, from a cache line on.
//
// The blocks' sums have the same place in their cache lines as `like` (those of a single block are the gradient
// itself). If rows are whole lines, a loop that is aligned for `like` is then aligned for the sums.
template <typename T, size_t kSums, typename Body>
void sum_blocks_over_rows(int64_t rows, int64_t n, int64_t bytes, const T* like, T* const (&totals)[kSums],
                          int64_t more, Body body) {
  const int64_t blocks = blocks_of(rows, kBackwardBlockRows), place = place_in_line(like);
  BlockSums<T> of_blocks[kSums];
  for (size_t i = 0; i < kSums; ++i) of_blocks[i] = BlockSums<T>(blocks, n, totals[i], place);
  const int64_t of_sums = whole_lines<T>(place + kSums * whole_lines<T>(n));
  parallel_blocks_with_scratch<T>(
      rows, kBackwardBlockRows, bytes, of_sums + more, [&](int64_t begin, int64_t end, T* scratch) {
        ColumnSum<T> sums[kSums] = {};
        for (size_t i = 0; n > 0 && i < kSums; ++i)
          sums[i] = {of_blocks[i][begin / kBackwardBlockRows], scratch + place + i * whole_lines<T>(n)};
        body(begin, end, sums, scratch + of_sums);
      });
  for (const BlockSums<T>& sum : of_blocks) sum.finish();
}

}  // namespace pyreg
