// Dropout of a branch, added to a residual and then normalised, in one pass:
//
//   forward   z = dropout(x) * row_scale * layer_scale + residual,  y = norm(z)
//   backward  dresidual = dz + the gradient through the norm
//             dx = dropout(dresidual * layer_scale * row_scale)
//             dlayer_scale = sum over rows of dresidual * (dropout(x) * row_scale)
//
// A row_scale of 0 drops its row by selection, as dropout does: in that row dropout(x) * row_scale and dx are +0,
// whatever x and dresidual are.
//
// row_scale has a factor for each row (stochastic depth: Huang et al., 2016, arXiv:1603.09382), layer_scale one for
// each column (LayerScale: Touvron et al., 2021, arXiv:2103.17239).
#pragma once

#include "kernels/norm_rows.h"
#include "kernels/row_masks.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

// The masks and factors of the rows of a branch, one after the other.
template <typename T>
class BranchRows {
 public:
  BranchRows(int64_t rows, int64_t n, const BranchDropout<T>& dropout)
      : masks_(rows, n, dropout.threshold, dropout.key, dropout.offset),
        scale_(masks_.scale<T>()),
        row_scales_(dropout.row_scale),
        layer_scale_(dropout.layer_scale) {}

  struct Chunk {
    const uint8_t* keep;
    int64_t begin;
    T scale, row_scale;
    const T* layer_scale;

    template <typename Vector>
    PYREG_INLINE typename Native<T>::vec dropout(Vector vector, typename Native<T>::vec x) const {
      return masked<T>(x, scale, keep + (vector.at - begin));
    }
  };

  PYREG_INLINE bool scaled() const { return layer_scale_ != nullptr; }
  // Chunks must be taken in order.
  PYREG_INLINE Chunk chunk(int64_t begin) {
    if (begin == 0 && row_scales_) {
      row_scale_ = *row_scales_++;
      dropped_ = row_scale_ == 0;
      if (dropped_) row_scale_ = 0;  // +0, because -0 would turn +0 into -0
    }
    const uint8_t* const keep = masks_.chunk(begin);
    return {dropped_ ? kAllDropped.byte : keep, begin, scale_, row_scale_, layer_scale_};
  }

 private:
  RowMasks masks_;
  T scale_, row_scale_ = 1;
  const T *row_scales_, *layer_scale_;
  bool dropped_ = false;  // the whole row
};

// The source of the forward pass's rows: those of z, which it computes.
template <typename T, bool kNontemporal>
class DropoutAddRows {
 public:
  static constexpr From kFrom = From::scratch;

  explicit DropoutAddRows(const DropoutAddNormForward<T>& a)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        x_(a.x),
        residual_(a.residual),
        residual_step_(a.residual_step),
        scratch_(a.scratch),
        z_(a.n, a.z) {}

  // Rows alternate between two rows of the scratch: while one is made, the other is normalised.
  PYREG_INLINE const T* start_row() {
    made_ = scratch_ + (row_++ % 2) * whole_lines<T>(n_);
    return made_;
  }

  PYREG_INLINE void make(int64_t begin, int64_t end) {
    branch_.scaled() ? make_chunk<true>(begin, end) : make_chunk<false>(begin, end);
    if (end < n_) return;
    x_ += n_;
    residual_ += residual_step_;
    if (z_.row()) z_.end_row();
  }

  PYREG_INLINE void finish() {
    if (z_.row()) z_.finish();
  }

 private:
  template <bool kScaled>
  PYREG_NOINLINE void make_chunk(int64_t begin, int64_t end) {
    T* const made = made_;
    const auto chunk = branch_.chunk(begin);
    const T *const x = x_, *const residual = residual_;
    const auto z = z_.chunk(begin);
    each_vector_of_chunk<T>(begin, end, n_, z.row ? z_.lead() : 0, [&](auto vector) PYREG_LAMBDA {
      auto branch = chunk.dropout(vector, vector.load(x));
      if constexpr (kScaled) branch = branch * chunk.row_scale * vector.load(chunk.layer_scale);
      const auto value = branch + vector.load(residual);
      vector.store(made, value);
      if (z.row) z.store(vector, value);
      fetch_row<kFromInput<kNontemporal>>(vector, x);
      fetch_row<kFromInput<kNontemporal>>(vector, residual);
    });
  }

  BranchRows<T> branch_;
  int64_t n_, row_ = 0;
  const T *x_, *residual_;
  int64_t residual_step_;
  T *scratch_, *made_ = nullptr;
  RowWriter<T, kNontemporal> z_;
};

// y and z may each be x or the residual.
template <typename Norm, bool kBias, typename T>
PYREG_INLINE void dropout_add_norm_forward(const DropoutAddNormForward<T>& a) {
  choose_stores<T>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    constexpr bool kNontemporal = is_nontemporal.value;
    DropoutAddRows<T, kNontemporal> source(a);
    norm_forward_rows<Norm, kBias, kNontemporal>(a.rows, a.n, source, a.weight, a.bias, a.eps, a.y, a.mean, a.rstd);
  });
}

// Computes dresidual, dx and dlayer_scale from the gradient through the norm.
template <typename T, bool kNontemporal>
class DropoutAddGradients {
 public:
  explicit DropoutAddGradients(const DropoutAddNormBackward<T>& a)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        dz_(a.dz),
        dz_step_(a.dz_step),
        x_(a.x),
        dlayer_scale_(a.rows, a.n, a.dlayer_scale),
        dx_(a.n, a.dx),
        dresidual_(a.n, a.dresidual) {}

  struct Chunk {
    typename BranchRows<T>::Chunk branch;
    const T *dz, *x;
    T* dlayer_scale;
    typename RowWriter<T, kNontemporal>::Chunk dx, dresidual;

    template <typename Vector>
    PYREG_INLINE void store(Vector vector, typename Native<T>::vec through_norm) const {
      const auto d = through_norm + vector.load(dz);
      if (dlayer_scale) {
        const auto unscaled = branch.dropout(vector, vector.load(x)) * branch.row_scale;
        vector.store(dlayer_scale, vector.load(dlayer_scale) + d * unscaled);
      }
      if (dresidual.row) dresidual.store(vector, d);
      auto d_branch = d;
      if (branch.layer_scale) d_branch = d * vector.load(branch.layer_scale) * branch.row_scale;
      dx.store(vector, branch.dropout(vector, d_branch));
      fetch_row<kFromInput<kNontemporal>>(vector, dz);
    }
  };

  PYREG_INLINE const T* row() const { return dx_.row(); }
  PYREG_INLINE Chunk chunk(int64_t begin) {
    return {branch_.chunk(begin), dz_, x_, dlayer_scale_.target(), dx_.chunk(begin), dresidual_.chunk(begin)};
  }
  PYREG_INLINE void end_row() {
    dz_ += dz_step_;
    if (x_) x_ += n_;
    dlayer_scale_.end_row();
    dx_.end_row();
    if (dresidual_.row()) dresidual_.end_row();
  }
  PYREG_INLINE void finish() {
    dx_.finish();
    if (dresidual_.row()) dresidual_.finish();
  }

 private:
  BranchRows<T> branch_;
  int64_t n_;
  const T* dz_;
  int64_t dz_step_;
  const T* x_;
  RowAdder<T> dlayer_scale_;
  RowWriter<T, kNontemporal> dx_, dresidual_;
};

// dx and dresidual may each be dy, dz, z or x.
template <typename Norm, typename T>
PYREG_INLINE void dropout_add_norm_backward(const DropoutAddNormBackward<T>& a) {
  choose_stores<T>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    constexpr bool kNontemporal = is_nontemporal.value;
    DropoutAddGradients<T, kNontemporal> gradients(a);
    norm_backward_rows<Norm, true, kNontemporal>(a.rows, a.n, a.dy, a.z, a.mean, a.rstd, a.weight, gradients,
                                                 a.dweight, a.dbias);
  });
}

template <typename T>
void dropout_add_layer_norm_forward(const DropoutAddNormForward<T>& arguments) {
  dropout_add_norm_forward<LayerNorm<T>, true>(arguments);
}

template <typename T>
void dropout_add_layer_norm_backward(const DropoutAddNormBackward<T>& arguments) {
  dropout_add_norm_backward<LayerNorm<T>>(arguments);
}

template <typename T>
void dropout_add_rms_norm_forward(const DropoutAddNormForward<T>& arguments) {
  dropout_add_norm_forward<RmsNorm<T>, false>(arguments);
}

template <typename T>
void dropout_add_rms_norm_backward(const DropoutAddNormBackward<T>& arguments) {
  dropout_add_norm_backward<RmsNorm<T>>(arguments);
}

}  // namespace
}  // namespace pyreg
