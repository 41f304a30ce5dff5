// The columns of an array (outer, n, inner), tile by tile, for a loop along an axis that is not the last.
//
// A tile is as many neighbouring columns as a cache line holds. It is copied to rows (columns, n), where the kernels
// of rows can work on it, and the result is copied back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "half_elements.h"
#include "kernels/table.h"

namespace pyreg {

// An array as (outer, n, inner).
struct Slabs {
  int64_t outer, n, inner;
};

struct ColumnTile {
  int64_t n, inner;
  int64_t slab, first, columns;  // the columns first, ..., first + columns - 1 of slab (n, inner)

  // The place in the array of element i of a column.
  int64_t place(int64_t i, int64_t column) const { return (slab * n + i) * inner + first + column; }
  // The place of a column in an array with one element per column, (outer, inner).
  int64_t column_place() const { return slab * inner + first; }

  // Calls body(i, column) for all elements: in squares, so that few cache lines are in use at a time on either side.
  template <typename Body>
  void each(Body body) const {
    constexpr int64_t kSide = 16;
    for (int64_t begin = 0; begin < n; begin += kSide) {
      const int64_t end = std::min(n, begin + kSide);
      for (int64_t column = 0; column < columns; ++column)
#pragma GCC unroll 4
        for (int64_t i = begin; i < end; ++i) body(i, column);
    }
  }
  // rows = change(array, place), element by element. The array's elements are widened to those of the rows.
  template <typename S, typename Change>
  void copy_in(const S* array, Compute<S>* rows, Change change) const {
    each([&](int64_t i, int64_t column) {
      const int64_t at = place(i, column);
      rows[column * n + i] = change(widened(array[at]), at);
    });
  }
  // array = change(rows, place)
  template <typename S, typename Change>
  void copy_out(const Compute<S>* rows, S* array, Change change) const {
    each([&](int64_t i, int64_t column) {
      const int64_t at = place(i, column);
      array[at] = narrowed<S>(change(rows[column * n + i], at));
    });
  }
};

template <typename T>
class ColumnTiles {
 public:
  explicit ColumnTiles(const Slabs& slabs) : slabs_(slabs) {}

  int64_t count() const { return slabs_.outer * per_slab(); }
  // The elements of the largest tile.
  int64_t elements() const { return std::min(kColumns, slabs_.inner) * slabs_.n; }

  ColumnTile operator[](int64_t tile) const {
    const int64_t first = tile % per_slab() * kColumns;
    return {slabs_.n, slabs_.inner, tile / per_slab(), first, std::min(kColumns, slabs_.inner - first)};
  }

 private:
  static constexpr int64_t kColumns = kLineBytes / sizeof(T);

  int64_t per_slab() const { return (slabs_.inner + kColumns - 1) / kColumns; }

  Slabs slabs_;
};

}  // namespace pyreg
