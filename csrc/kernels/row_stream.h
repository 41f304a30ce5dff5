// Rows written past the caches, one behind the other. A line in which one row ends and the next begins is put
// together here and then streamed as well: among streamed lines, one that has to be read before it can be
// written would hold up the others.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

// Writes rows of at least four lines each.
template <typename T>
class RowStream {
 public:
  static constexpr bool takes_rows_of(int64_t n) { return n * sizeof(T) >= 4 * kLineBytes; }

  // The next row stands at `row`.
  PYREG_INLINE void begin(T* row) {
    row_ = row;
    lead_ = to_next_line(row);
  }

  template <typename Vector>
  PYREG_INLINE void store(Vector vector, typename Native<T>::vec v) {
    if constexpr (Vector::kWhole) {
      if (vector.in_line) return store_nontemporal(row_ + vector.at, v);
    }
    // What stands before the lead is the end of the line that the row before began.
    T* const line = vector.at < lead_ ? first_line_ : last_line_;
    vector.store_at(line + (kLine - to_next_line(row_ + vector.at)) % kLine, v);
  }

  // When the row of n is stored.
  PYREG_INLINE void end(int64_t n) {
    if (lead_ > 0 && started_)
      stream_line(first_line_, row_ - (kLine - lead_));
    else  // the line's first part is another's
      std::memcpy(row_, first_line_ + (kLine - lead_) % kLine, lead_ * sizeof(T));
    std::memcpy(first_line_, last_line_, sizeof first_line_);
    end_ = row_ + n;
    started_ = true;
  }

  // When all rows are.
  PYREG_INLINE void finish() {
    const int64_t rest = (kLine - to_next_line(end_)) % kLine;  // the line's last part is another's
    std::memcpy(end_ - rest, first_line_, rest * sizeof(T));
    nontemporal_fence();
  }

 private:
  static constexpr int kLine = kLineBytes / sizeof(T);

  static PYREG_INLINE void stream_line(const T* line, T* target) {
    for (int i = 0; i < kLine; i += Group<T>::kWidth) {
      typename Native<T>::vec v;
      std::memcpy(&v, line + i, sizeof v);
      store_nontemporal(target + i, v);
    }
  }

  T* row_;
  int64_t lead_;
  // The lines in which the row begins, and in which it ends.
  alignas(kLineBytes) T first_line_[kLine], last_line_[kLine];
  T* end_ = nullptr;
  bool started_ = false;
};

// run(Flag<true>{}) where `rows` rows of n are to be streamed and can be, else run(Flag<false>{}).
template <typename T, typename Run>
PYREG_INLINE void choose_stores(bool nontemporal, int64_t rows, int64_t n, Run run) {
  nontemporal&& rows > 0 && RowStream<T>::takes_rows_of(n) ? run(Flag<true>{}) : run(Flag<false>{});
}

}  // namespace
}  // namespace pyreg
