// Sums over a row, taken chunk by chunk: so that the sums of the next row, which comes from memory, can run beside
// what is done with this one, whose result goes there. One after the other they would leave memory idle in turn.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

// Elements of a row that are summed in T; the sums of such blocks are added in double. A long row around 1e6
// would lose its mean otherwise, and any long row its variance.
constexpr int64_t kSumBlock = 4096;
constexpr int64_t kRowChunk = 128;  // elements
static_assert(kSumBlock % kRowChunk == 0 && kRowChunk % Group<float>::kCount == 0);

// take(begin, end) for each chunk of a row of n; an empty row has one chunk, which is empty.
template <typename Take>
PYREG_INLINE void each_chunk(int64_t n, Take take) {
  int64_t begin = 0;
  do {
    take(begin, n - begin < kRowChunk ? n : begin + kRowChunk);
    begin += kRowChunk;
  } while (begin < n);
}

// The chunk begin, ..., end - 1 of a row of n, moved on to where the lines of the row's result start, which is at
// `lead`.
struct MovedChunk {
  int64_t begin, end;

  PYREG_INLINE MovedChunk(int64_t from, int64_t to, int64_t n, int64_t lead)
      : begin(from == 0 ? 0 : from + lead), end(to + lead > n ? n : to + lead) {}
};

// body(vector) for the vectors of a chunk, moved on like that.
template <typename T, typename Body>
PYREG_INLINE void each_vector_of_chunk(int64_t begin, int64_t end, int64_t n, int64_t lead, Body body) {
  const MovedChunk moved(begin, end, n, lead);
  each_vector_from_line<T>(moved.begin, moved.end, lead, body);
}

// What a row comes from, and with it how it is fetched ahead.
enum class From { scratch, cache, memory };

// Vectors of 16 bytes are not fast enough to wait for memory; there, one way to fetch is code for the sums once only.
template <bool kNontemporal>
constexpr From kFromInput = kNontemporal && kVectorBytes > 16 ? From::memory : From::cache;

// Into the first-level cache, and from memory into the second, farther ahead: the first level waits for some two
// dozen lines at a time, which is too few for the latency of memory. What the scratch holds is in the cache.
template <From kFrom, typename Vector, typename T>
PYREG_INLINE void fetch_row(Vector vector, const T* row) {
  if constexpr (kFrom == From::cache) fetch_ahead<1536, 3>(vector, row);
  if constexpr (kFrom == From::memory) fetch_ahead<3072, 2>(vector, row);
}

// A sum over a row of n: in T over blocks, in double over those.
template <typename T>
class RowSum {
 public:
  PYREG_INLINE void start() { *this = RowSum(); }

  // Those of the block that is summed now: for a chunk to add to, in registers, and give back by `put`.
  PYREG_INLINE Accumulators<T> accumulators() const { return accumulators_; }
  PYREG_INLINE void put(const Accumulators<T>& accumulators, int64_t end, int64_t n) {
    accumulators_ = accumulators;
    if (end == n || end % kSumBlock == 0) {
      total_ += static_cast<double>(accumulators_.sum());
      accumulators_ = Accumulators<T>();
    }
  }

  double total() const { return total_; }

 private:
  Accumulators<T> accumulators_;
  double total_ = 0;
};

// All chunks of a row, one after the other.
template <typename Sums>
PYREG_INLINE void add_row(Sums& sums, int64_t n) {
  each_chunk(n, [&](int64_t begin, int64_t end) PYREG_LAMBDA { sums.template add<From::scratch>(begin, end); });
}

}  // namespace
}  // namespace pyreg
