// RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight (n); rstd (rows), or null. y may be x.
template <typename S, typename T = Compute<S>>
void rms_norm_forward(int64_t rows, int64_t n, const S* x, const T* weight, double eps, S* y, T* rstd, T* scratch,
                      bool nontemporal) {
  choose_stores<S>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    StoredRows<S, is_nontemporal.value> source(n, x);
    norm_forward_rows<RmsNorm<S>, false, is_nontemporal.value>(rows, n, source, weight, nullptr, eps, y, nullptr,
                                                               rstd, scratch, nontemporal);
  });
}

// dy, x, dx (rows, n); rstd (rows); weight (n), dweight: both, or neither. dx may be dy or x. scratch:
// norm_scratch<S>(n).
template <typename S, typename T = Compute<S>>
void rms_norm_backward(int64_t rows, int64_t n, const S* dy, const S* x, const T* rstd, const T* weight, S* dx,
                       const ColumnSum<T>& dweight, T* scratch, bool nontemporal) {
  norm_backward<RmsNorm<S>>(rows, n, dy, x, nullptr, rstd, weight, dx, dweight, {}, scratch, nontemporal);
}

}  // namespace
}  // namespace pyreg
