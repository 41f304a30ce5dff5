// Rows of results (rows, n) that are made chunk by chunk, stored or streamed.
#pragma once

#include "kernels/row_stream.h"
#include "kernels/row_sums.h"

namespace pyreg {
namespace {

template <typename T, bool kNontemporal>
class ResultRows {
 public:
  ResultRows(int64_t n, T* y) : n_(n), y_(y) {}

  // The next row: chunk(begin, moved) for each chunk of it, before value(vector) for the vectors of what it is moved
  // to.
  template <typename Chunk, typename Value>
  PYREG_INLINE void put(Chunk chunk, Value value) {
    if constexpr (kNontemporal) stream_.begin(y_);
    // What is stored is read from vectors as they were written to the scratch just before: those of other places
    // would have to wait until these are through.
    const int64_t lead = kNontemporal ? to_next_line(y_) : 0;
    T* const y = y_;
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      chunk(begin, MovedChunk(begin, end, n_, lead));
      each_vector_of_chunk<T>(begin, end, n_, lead, [&](auto vector) PYREG_LAMBDA {
        if constexpr (kNontemporal)
          stream_.store(vector, value(vector));
        else
          vector.store(y, value(vector));
      });
    });
    if constexpr (kNontemporal) stream_.end(n_);
    y_ += n_;
  }
  PYREG_INLINE void finish() {
    if constexpr (kNontemporal) stream_.finish();
  }

 private:
  int64_t n_;
  T* y_;
  RowStream<T> stream_;
};

}  // namespace
}  // namespace pyreg
