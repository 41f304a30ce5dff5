// Rows written past the caches, one behind the other. A line in which one row ends and the next begins is put
// together here and then streamed as well: among streamed lines, one that has to be read before it can be
// written would hold up the others.
#pragma once

#include "kernels/lanes.h"

namespace pyreg {
namespace {

// Writes kRows rows at a time, of at least four lines each.
template <typename T, int kRows>
class RowStream {
 public:
  static constexpr bool takes_rows_of(int64_t n) { return n * sizeof(T) >= 4 * kLineBytes; }

  // Row r of the next ones, which stands at `row`.
  PYREG_INLINE void begin(int r, T* row) {
    row_[r] = row;
    lead_[r] = to_next_line(row);
  }

  template <typename Vector>
  PYREG_INLINE void store(int r, Vector vector, typename Native<T>::vec v) {
    if constexpr (Vector::kWhole) {
      if (vector.in_line) return store_streaming(row_[r] + vector.at, v);
    }
    // What stands before the lead is the end of the line that the row before began.
    T* const line = line_[vector.at < lead_[r] ? r : r + 1];
    vector.store_at(line + (kLine - to_next_line(row_[r] + vector.at)) % kLine, v);
  }

  // When the kRows rows of n are stored.
  PYREG_INLINE void end(int64_t n) {
    for (int r = 0; r < kRows; ++r) {
      if (lead_[r] == 0) continue;
      if (r > 0 || started_)
        stream_line(line_[r], row_[r] - (kLine - lead_[r]));
      else  // the line's first part is another's
        std::memcpy(row_[0], line_[0] + kLine - lead_[0], lead_[0] * sizeof(T));
    }
    std::memcpy(line_[0], line_[kRows], sizeof line_[0]);
    end_ = row_[kRows - 1] + n;
    started_ = true;
  }

  // When all rows are.
  PYREG_INLINE void finish() {
    const int64_t rest = (kLine - to_next_line(end_)) % kLine;  // the line's last part is another's
    std::memcpy(end_ - rest, line_[0], rest * sizeof(T));
    stream_fence();
  }

 private:
  static constexpr int kLine = kLineBytes / sizeof(T);

  static PYREG_INLINE void stream_line(const T* line, T* target) {
    for (int i = 0; i < kLine; i += Lanes<T>::kWidth) {
      typename Native<T>::vec v;
      std::memcpy(&v, line + i, sizeof v);
      store_streaming(target + i, v);
    }
  }

  T* row_[kRows];
  int64_t lead_[kRows];
  alignas(kLineBytes) T line_[kRows + 1][kLine];  // the lines in which row r begins, and row r - 1 ends
  T* end_ = nullptr;
  bool started_ = false;
};

}  // namespace
}  // namespace pyreg
