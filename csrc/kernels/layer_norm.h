// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T>
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                        double* mean, T* rstd, bool stream) {
  choose_stream<T>(stream, rows, n, [&](auto streams) PYREG_LAMBDA {
    StoredRows<T, streams.value> source(n, x);
    norm_forward_rows<LayerNorm<T>, true, streams.value>(rows, n, source, weight, bias, eps, y, mean, rstd);
  });
}

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), and dweight, dbias (n) with it, or null. dx may be dy or x.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                         const T* weight, T* dx, T* dweight, T* dbias, bool stream) {
  norm_backward<LayerNorm<T>>(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias, stream);
}

}  // namespace
}  // namespace pyreg
