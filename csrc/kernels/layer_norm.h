// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename T>
void layer_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, const T* bias, double eps, T* y,
                        double* mean, T* rstd, bool nontemporal) {
  choose_stores<T>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    StoredRows<T, is_nontemporal.value> source(n, x);
    norm_forward_rows<LayerNorm<T>, true, is_nontemporal.value>(rows, n, source, weight, bias, eps, y, mean, rstd);
  });
}

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), dweight, dbias: all, or none. dx may be dy or x.
template <typename T>
void layer_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const double* mean, const T* rstd,
                         const T* weight, T* dx, const ColumnSum<T>& dweight, const ColumnSum<T>& dbias,
                         bool nontemporal) {
  norm_backward<LayerNorm<T>>(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias, nontemporal);
}

}  // namespace
}  // namespace pyreg
