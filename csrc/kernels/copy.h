// What the machine can do, for the benchmark to compare with.
#pragma once

#include "kernels/row_stream.h"

namespace pyreg {
namespace {

template <typename T, bool kNontemporal>
void copy_elements(int64_t n, const T* source, T* target) {
  RowStream<T> stream;
  if constexpr (kNontemporal) stream.begin(target);
  const auto body = [&](auto vector) PYREG_LAMBDA {
    fetch_ahead<2048, 2>(vector, source);  // the hardware's own prefetching starts anew in every page
    if constexpr (kNontemporal)
      stream.store(vector, vector.load(source));
    else
      vector.store(target, vector.load(source));
  };
  each_vector_from_line<T>(0, n, to_next_line(target), body);
  if constexpr (kNontemporal) {
    stream.end(n);
    stream.finish();
  }
}

template <typename T>
void copy(int64_t n, const T* source, T* target, bool nontemporal) {
  choose_stores<T>(nontemporal, 1, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    copy_elements<T, is_nontemporal.value>(n, source, target);
  });
}

// The least that a loop with AdamW's traffic can do: four arrays read, three of them written.
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
