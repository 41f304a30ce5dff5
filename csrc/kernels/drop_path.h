// Stochastic depth (Huang et al., 2016, arXiv:1603.09382): dropout of whole samples.
#pragma once

#include "kernels/row_writer.h"

namespace pyreg {
namespace {

// A sample that is dropped is not read: its y is 0, whatever x is.
template <typename S, bool kNontemporal>
void drop_path_rows(int64_t rows, int64_t n, const S* x, const uint8_t* kept, Compute<S> scale, S* y,
                    bool nontemporal) {
  RowWriter<S, kNontemporal> writer(n, y, nontemporal);
  for (int64_t r = 0; r < rows; ++r, x += n) {
    if (kept[r])
      writer.write_elements([&](auto vector) PYREG_LAMBDA {
        fetch_ahead<2048, 2>(vector, x);
        return vector.load(x) * scale;
      });
    else
      writer.write_elements([](auto) PYREG_LAMBDA { return typename Native<S>::vec{}; });
  }
  writer.finish();
}

// x, y (rows, n); y may be x. kept (rows): 0 if the row is dropped.
template <typename S>
void drop_path(int64_t rows, int64_t n, const S* x, const uint8_t* kept, Compute<S> scale, S* y, bool nontemporal) {
  choose_stores<S>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    drop_path_rows<S, is_nontemporal.value>(rows, n, x, kept, scale, y, nontemporal);
  });
}

}  // namespace
}  // namespace pyreg
