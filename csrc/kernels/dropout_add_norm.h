// A normalisation of the sum of a residual and of what dropout leaves of a branch, in one pass:
//
//   forward   z = dropout(x) * row_scale * layer_scale + residual,  y = norm(z)
//   backward  dresidual = dz + what comes back through the norm
//             dx = dropout(dresidual * layer_scale * row_scale)
//             dlayer_scale = sum over rows of dresidual * (dropout(x) * row_scale)
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

  // A chunk of the row that was started.
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
  PYREG_INLINE void start_row() { row_scale_ = row_scales_ ? *row_scales_++ : T{1}; }
  PYREG_INLINE Chunk chunk(int64_t begin) { return {masks_.chunk(begin), begin, scale_, row_scale_, layer_scale_}; }

 private:
  RowMasks masks_;
  T scale_, row_scale_ = 1;
  const T *row_scales_, *layer_scale_;
};

// The rows of z, as a source of the forward pass.
template <typename T>
class DropoutAddRows {
 public:
  static constexpr From kFrom = From::scratch;

  DropoutAddRows(const DropoutAddNormForward<T>& a, bool nontemporal)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        x_(a.x),
        residual_(a.residual),
        residual_step_(a.residual_step),
        z_(a.z),
        scratch_(a.scratch),
        streams_z_(nontemporal && a.z) {}

  // In one of two rows of the scratch: the other one is being normalised.
  PYREG_INLINE const T* start_row() {
    if (row_ >= 0) {
      x_ += n_;
      residual_ += residual_step_;
      if (z_) z_ += n_;
    }
    ++row_;
    branch_.start_row();
    made_ = scratch_ + (row_ % 2) * whole_lines<T>(n_);
    return made_;
  }

  PYREG_INLINE void make(int64_t begin, int64_t end) {
    if (branch_.scaled())
      streams_z_ ? make_chunk<true, true>(begin, end) : make_chunk<false, true>(begin, end);
    else
      streams_z_ ? make_chunk<true, false>(begin, end) : make_chunk<false, false>(begin, end);
  }

  PYREG_INLINE void finish() {
    if (streams_z_) stream_.finish();
  }

 private:
  template <bool kNontemporal, bool kScaled>
  PYREG_NOINLINE void make_chunk(int64_t begin, int64_t end) {
    T *const made = made_, *const z = z_ ? z_ : made_;
    if constexpr (kNontemporal)
      if (begin == 0) stream_.begin(z);
    const auto chunk = branch_.chunk(begin);
    const T *const x = x_, *const residual = residual_;
    each_vector_of_chunk<T>(begin, end, n_, to_next_line(z), [&](auto vector) PYREG_LAMBDA {
      auto branch = chunk.dropout(vector, vector.load(x));
      if constexpr (kScaled) branch = branch * chunk.row_scale * vector.load(chunk.layer_scale);
      const auto value = branch + vector.load(residual);
      vector.store(made, value);
      if constexpr (kNontemporal)
        stream_.store(vector, value);
      else if (z != made)
        vector.store(z, value);
      fetch_row<kFromInput<kNontemporal>>(vector, x);
      fetch_row<kFromInput<kNontemporal>>(vector, residual);
    });
    if constexpr (kNontemporal)
      if (end == n_) stream_.end(n_);
  }

  BranchRows<T> branch_;
  int64_t n_, row_ = -1;
  const T *x_, *residual_;
  int64_t residual_step_;
  T *z_, *scratch_, *made_ = nullptr;
  bool streams_z_;
  RowStream<T> stream_;
};

// y and z may each be x or the residual.
template <typename Norm, bool kBias, typename T>
PYREG_INLINE void dropout_add_norm_forward(const DropoutAddNormForward<T>& a) {
  choose_stores<T>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    constexpr bool kNontemporal = is_nontemporal.value;
    DropoutAddRows<T> source(a, kNontemporal);
    norm_forward_rows<Norm, kBias, kNontemporal>(a.rows, a.n, source, a.weight, a.bias, a.eps, a.y, a.mean, a.rstd);
  });
}

// From the gradient that comes through the norm: dresidual, dx and dlayer_scale.
template <typename T, bool kNontemporal>
class DropoutAddGradients {
 public:
  explicit DropoutAddGradients(const DropoutAddNormBackward<T>& a)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        dz_(a.dz),
        dz_step_(a.dz_step),
        x_(a.x),
        dx_(a.dx),
        dresidual_(a.dresidual),
        dlayer_scale_(a.dlayer_scale) {
    if (dlayer_scale_)
      for (int64_t i = 0; i < n_; ++i) dlayer_scale_[i] = 0;
  }

  // A chunk of the row that was started.
  struct Chunk {
    typename BranchRows<T>::Chunk branch;
    const T *dz, *x;
    T *dx, *dresidual, *dlayer_scale;
    RowStream<T>&dx_stream, &dresidual_stream;

    template <typename Vector>
    PYREG_INLINE void store(Vector vector, typename Native<T>::vec through_norm) const {
      const auto d = through_norm + vector.load(dz);
      if (dlayer_scale) {
        const auto unscaled = branch.dropout(vector, vector.load(x)) * branch.row_scale;
        vector.store(dlayer_scale, vector.load(dlayer_scale) + d * unscaled);
      }
      if (dresidual) put(vector, dresidual, dresidual_stream, d);
      auto d_branch = d;
      if (branch.layer_scale) d_branch = d * vector.load(branch.layer_scale) * branch.row_scale;
      put(vector, dx, dx_stream, branch.dropout(vector, d_branch));
      fetch_row<kFromInput<kNontemporal>>(vector, dz);
    }

    template <typename Vector>
    static PYREG_INLINE void put(Vector vector, T* row, RowStream<T>& stream, typename Native<T>::vec value) {
      if constexpr (kNontemporal)
        stream.store(vector, value);
      else
        vector.store(row, value);
    }
  };

  PYREG_INLINE const T* target() const { return dx_; }
  PYREG_INLINE void start_row() {
    branch_.start_row();
    if constexpr (kNontemporal) {
      dx_stream_.begin(dx_);
      if (dresidual_) dresidual_stream_.begin(dresidual_);
    }
  }
  PYREG_INLINE Chunk chunk(int64_t begin) {
    return {branch_.chunk(begin), dz_, x_, dx_, dresidual_, dlayer_scale_, dx_stream_, dresidual_stream_};
  }
  PYREG_INLINE void end_row() {
    if constexpr (kNontemporal) {
      dx_stream_.end(n_);
      if (dresidual_) dresidual_stream_.end(n_);
    }
    dz_ += dz_step_;
    dx_ += n_;
    if (x_) x_ += n_;
    if (dresidual_) dresidual_ += n_;
  }
  PYREG_INLINE void finish() {
    if constexpr (kNontemporal) {
      dx_stream_.finish();
      if (dresidual_) dresidual_stream_.finish();
    }
  }

 private:
  BranchRows<T> branch_;
  int64_t n_;
  const T* dz_;
  int64_t dz_step_;
  const T* x_;
  T *dx_, *dresidual_, *dlayer_scale_;
  RowStream<T> dx_stream_, dresidual_stream_;
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
