// RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight (n); rstd (rows), or null. y may be x.
template <typename T>
void rms_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, double eps, T* y, T* rstd, bool stream) {
  choose_stream<T>(stream, rows, n, [&](auto streams) PYREG_LAMBDA {
    StoredRows<T, streams.value> source(n, x);
    norm_forward_rows<RmsNorm<T>, false, streams.value, T>(rows, n, source, weight, nullptr, eps, y, nullptr, rstd);
  });
}

// dy, x, dx (rows, n); rstd (rows); weight, and with it dweight (n), or null. dx may be dy or x.
template <typename T>
void rms_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const T* rstd, const T* weight, T* dx,
                       T* dweight, bool stream) {
  norm_backward<RmsNorm<T>, T>(rows, n, dy, x, nullptr, rstd, weight, dx, dweight, nullptr, stream);
}

}  // namespace
}  // namespace pyreg
