// Sums over a row, chunk by chunk. The next row, which is read from memory, can then be summed while the result of
// this row is written there. One after the other, each would leave memory idle for part of the time.
#pragma once

#include "kernels/half.h"

namespace pyreg {
namespace {

// Elements of a row that are summed in T; the sums of these blocks are added in double. Otherwise a long row around
// 1e6 would lose its mean, and any long row its variance.
constexpr int64_t kSumBlock = 4096;
constexpr int64_t kRowChunk = 256;  // elements
static_assert(kSumBlock % kRowChunk == 0 && kRowChunk % Group<float>::kCount == 0);

// Calls take(begin, end) for each chunk of a row of n. An empty row has one empty chunk.
template <typename Take>
PYREG_INLINE void each_chunk(int64_t n, Take take) {
  int64_t begin = 0;
  do {
    take(begin, n - begin < kRowChunk ? n : begin + kRowChunk);
    begin += kRowChunk;
  } while (begin < n);
}

// The chunk from, ..., to - 1 of a row of n, moved by `lead` to where the cache lines of the row's result start. The
// first chunk still begins at 0.
struct MovedChunk {
  int64_t begin, end;

  PYREG_INLINE MovedChunk(int64_t from, int64_t to, int64_t n, int64_t lead)
      : begin(from == 0 ? 0 : from + lead), end(to + lead > n ? n : to + lead) {}
};

// Calls body(vector) for the vectors of a chunk that is moved like that.
template <typename T, typename Body>
PYREG_INLINE void each_vector_of_chunk(int64_t begin, int64_t end, int64_t n, int64_t lead, Body body) {
  const MovedChunk moved(begin, end, n, lead);
  each_vector_from_line<T>(moved.begin, moved.end, lead, body);
}

// Rows alternate between two rows of the scratch: while one is made, the other is used.
template <typename T>
PYREG_INLINE T* row_in_turn(T* scratch, int64_t row, int64_t n) {
  return scratch + row % 2 * whole_groups<T>(n);
}

// Where a row comes from, which decides how it is prefetched.
enum class From { scratch, cache, memory };

// 16-byte vectors are not fast enough to wait for memory. Prefetching in only one way then means only one copy of the
// code for the sums.
template <bool kNontemporal>
constexpr From kFromInput = kNontemporal && kVectorBytes > 16 ? From::memory : From::cache;

// Prefetches into the first-level cache, or from memory into the second, farther ahead: the first level can wait for
// only some two dozen lines at a time, too few for the latency of memory. What the scratch holds is in the cache.
template <From kFrom, typename Vector, typename T>
PYREG_INLINE void fetch_row(Vector vector, const T* row) {
  if constexpr (kFrom == From::cache) fetch_ahead<1536, 3>(vector, row);
  if constexpr (kFrom == From::memory) fetch_ahead<3072, 2>(vector, row);
}

// A sum over a row of n: in T within a block, in double over the blocks.
template <typename S>
class RowSum {
 public:
  PYREG_INLINE void start() { *this = RowSum(); }

  // The sums of the current block. A chunk copies them into registers, adds to them and hands them back to `put`.
  PYREG_INLINE Accumulators<S> accumulators() const { return accumulators_; }
  PYREG_INLINE void put(const Accumulators<S>& accumulators, int64_t end, int64_t n) {
    accumulators_ = accumulators;
    if (end == n || end % kSumBlock == 0) {
      total_ += static_cast<double>(accumulators_.sum());
      accumulators_ = Accumulators<S>();
    }
  }

  double total() const { return total_; }

 private:
  Accumulators<S> accumulators_;
  double total_ = 0;
};

// The sum of take(vector) over the vectors of a row of n. kPadded: the row may be taken in whole vectors.
template <typename S, bool kPadded, typename Take>
PYREG_INLINE double sum_of_vectors(int64_t n, Take take) {
  constexpr int kWidth = Group<S>::kWidth, kCount = Group<S>::kCount;
  RowSum<S> sum;
  const int64_t groups_end = n / kCount * kCount;
  for (int64_t begin = 0; begin < groups_end; begin += kSumBlock) {
    const int64_t end = groups_end - begin < kSumBlock ? groups_end : begin + kSumBlock;
    Accumulators<S> accumulators = sum.accumulators();
    for (int64_t at = begin; at < end; at += kCount)
      each_of_group<S>([&](int k)
                           PYREG_LAMBDA { accumulators.v[k] += take(WholeVector<S>{at + k * kWidth, k, true}); });
    sum.put(accumulators, end, n);
  }
  if (groups_end == n) return sum.total();
  // The lanes of vectors that hold no element of the row keep their sums.
  Accumulators<S> rest = sum.accumulators();
  each_of_group<S>([&](int k) PYREG_LAMBDA {
    const int64_t at = groups_end + k * kWidth, left = n - groups_end - (kPaired<S> ? k & ~1 : k) * kWidth;
    if (left >= kStep<S> || (kPadded && left > 0))
      rest.v[k] += take(WholeVector<S>{at, k, true});
    else if (left > 0)
      rest.v[k] += take(PartVector<S>{at, k, static_cast<int>(left)});
  });
  sum.put(rest, n, n);
  return sum.total();
}

// Adds all chunks of a row.
template <typename Sums>
PYREG_INLINE void add_row(Sums& sums, int64_t n) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA { sums.template add<From::scratch>(begin, end); });
}

}  // namespace
}  // namespace pyreg
