// RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467).
#pragma once

#include "kernels/norm_rows.h"

namespace pyreg {
namespace {

// x, y (rows, n); weight (n); rstd (rows), or null. y may be x.
template <typename T>
void rms_norm_forward(int64_t rows, int64_t n, const T* x, const T* weight, double eps, T* y, T* rstd,
                      bool nontemporal) {
  choose_stores<T>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    StoredRows<T, is_nontemporal.value> source(n, x);
    norm_forward_rows<RmsNorm<T>, false, is_nontemporal.value, T>(rows, n, source, weight, nullptr, eps, y, nullptr,
                                                                  rstd);
  });
}

// dy, x, dx (rows, n); rstd (rows); weight (n), dweight: both, or neither. dx may be dy or x.
template <typename T>
void rms_norm_backward(int64_t rows, int64_t n, const T* dy, const T* x, const T* rstd, const T* weight, T* dx,
                       const ColumnSum<T>& dweight, bool nontemporal) {
  norm_backward<RmsNorm<T>, T>(rows, n, dy, x, nullptr, rstd, weight, dx, dweight, {}, nontemporal);
}

}  // namespace
}  // namespace pyreg
