// Stochastic depth (Huang et al., 2016, arXiv:1603.09382): dropout of whole samples.
#pragma once

#include "kernels/row_writer.h"

namespace pyreg {
namespace {

// A sample that is dropped is not read: its y is 0, whatever x is.
template <typename T, bool kNontemporal>
void drop_path_rows(int64_t rows, int64_t n, const T* x, const uint8_t* kept, T scale, T* y) {
  RowWriter<T, kNontemporal> writer(n, y);
  for (int64_t r = 0; r < rows; ++r, x += n) {
    if (kept[r])
      each_vector_from_line<T>(0, n, writer.lead(), [&](auto vector) PYREG_LAMBDA {
        fetch_ahead<2048, 2>(vector, x);
        writer.chunk(0).store(vector, vector.load(x) * scale);
      });
    else
      each_vector_from_line<T>(0, n, writer.lead(), [&](auto vector) PYREG_LAMBDA {
        writer.chunk(0).store(vector, typename Native<T>::vec{});
      });
    writer.end_row();
  }
  writer.finish();
}

// x, y (rows, n); y may be x. kept (rows): 0 if the row is dropped.
template <typename T>
void drop_path(int64_t rows, int64_t n, const T* x, const uint8_t* kept, T scale, T* y, bool nontemporal) {
  choose_stores<T>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    drop_path_rows<T, is_nontemporal.value>(rows, n, x, kept, scale, y);
  });
}

}  // namespace
}  // namespace pyreg
