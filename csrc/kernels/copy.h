// Loops that show what the machine can do, for the benchmark to compare with.
#pragma once

#include "kernels/row_writer.h"

namespace pyreg {
namespace {

template <typename T, bool kNontemporal>
void copy_elements(int64_t n, const T* source, T* target, bool nontemporal) {
  RowWriter<T, kNontemporal> writer(n, target, nontemporal);
  writer.write_elements([&](auto vector) PYREG_LAMBDA {
    fetch_ahead<2048, 2>(vector, source);  // the hardware's own prefetching starts again at every page
    return vector.load(source);
  });
  writer.finish();
}

template <typename T>
void copy(int64_t n, const T* source, T* target, bool nontemporal) {
  choose_stores<T>(nontemporal, 1, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    copy_elements<T, is_nontemporal.value>(n, source, target, nontemporal);
  });
}

// A minimal loop with AdamW's memory traffic: four arrays are read, and three of them written.
template <typename T>
void update_loop(int64_t n, T* __restrict param, const T* __restrict grad, T* __restrict exp_avg,
                 T* __restrict exp_avg_sq) {
  for (int64_t i = 0; i < n; ++i) {
    param[i] += grad[i];
    exp_avg[i] += grad[i];
    exp_avg_sq[i] += grad[i];
  }
}

}  // namespace
}  // namespace pyreg
