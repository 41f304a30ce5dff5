// The columns of an array (outer, n, inner), tile by tile, for a loop along an axis that is not the last.
//
// A tile is as many neighbouring columns as a cache line holds. It is copied to rows (columns, n), where the kernels
// of rows can work on it, and the result is copied back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/table.h"

namespace pyreg {

struct ColumnTile {
  int64_t outer, n, inner;
  int64_t slab, first, columns;  // the columns first, ..., first + columns - 1 of slab (n, inner)

  // The place in the array of element i of a column.
  int64_t place(int64_t i, int64_t column) const { return (slab * n + i) * inner + first + column; }
  // The place of a column in an array with one element per column, (outer, inner).
  int64_t column_place() const { return slab * inner + first; }

  // Calls body(i, column) for all elements: in squares, so that few cache lines are in use at a time on either side.
  template <typename Body>
  void each(Body body) const {
    constexpr int64_t kSide = 16;
    for (int64_t begin = 0; begin < n; begin += kSide)
      for (int64_t column = 0; column < columns; ++column)
        for (int64_t i = begin, end = std::min(n, begin + kSide); i < end; ++i) body(i, column);
  }
  // rows = change(array, place), element by element.
  template <typename T, typename Change>
  void copy_in(const T* array, T* rows, Change change) const {
    each([&](int64_t i, int64_t column) {
      const int64_t at = place(i, column);
      rows[column * n + i] = change(array[at], at);
    });
  }
  // array = change(rows, place)
  template <typename T, typename Change>
  void copy_out(const T* rows, T* array, Change change) const {
    each([&](int64_t i, int64_t column) {
      const int64_t at = place(i, column);
      array[at] = change(rows[column * n + i], at);
    });
  }
};

template <typename T>
class ColumnTiles {
 public:
  ColumnTiles(int64_t outer, int64_t n, int64_t inner) : outer_(outer), n_(n), inner_(inner) {}

  int64_t count() const { return outer_ * per_slab(); }
  // The elements of the largest tile.
  int64_t elements() const { return std::min(kColumns, inner_) * n_; }

  ColumnTile operator[](int64_t tile) const {
    const int64_t first = tile % per_slab() * kColumns;
    return {outer_, n_, inner_, tile / per_slab(), first, std::min(kColumns, inner_ - first)};
  }

 private:
  static constexpr int64_t kColumns = kLineBytes / sizeof(T);

  int64_t per_slab() const { return (inner_ + kColumns - 1) / kColumns; }

  int64_t outer_, n_, inner_;
};

}  // namespace pyreg
