// LayerNorm (Ba, Kiros and Hinton, 2016, arXiv:1607.06450).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight, bias (n); mean, rstd (rows), or null. y may be x.
template <typename S, typename T = Compute<S>>
void layer_norm_forward(int64_t rows, int64_t n, const S* x, const T* weight, const T* bias, double eps, S* y,
                        double* mean, T* rstd, T* scratch, bool nontemporal) {
  choose_stores<S>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    StoredRows<S, is_nontemporal.value> source(n, x);
    norm_forward_rows<LayerNorm<S>, true, is_nontemporal.value>(rows, n, source, weight, bias, eps, y, mean, rstd,
                                                                scratch, nontemporal);
  });
}

// dy, x, dx (rows, n); mean, rstd (rows); weight (n), dweight, dbias: all, or none. dx may be dy or x. scratch:
// norm_scratch<S>(n).
template <typename S, typename T = Compute<S>>
void layer_norm_backward(int64_t rows, int64_t n, const S* dy, const S* x, const double* mean, const T* rstd,
                         const T* weight, S* dx, const ColumnSum<T>& dweight, const ColumnSum<T>& dbias, T* scratch,
                         bool nontemporal) {
  norm_backward<LayerNorm<S>>(rows, n, dy, x, mean, rstd, weight, dx, dweight, dbias, scratch, nontemporal);
}

}  // namespace
}  // namespace pyreg
