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

#include <type_traits>

#include "kernels/norm_rows.h"
#include "kernels/row_masks.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

// The masks and factors of the rows of a branch, one after the other.
template <typename S>
class BranchRows {
  using T = Compute<S>;

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
      return masked<T>(x, scale, kept_lanes<T>(vector, keep, begin));
    }
  };

  PYREG_INLINE bool scaled() const { return layer_scale_ != nullptr; }
  // Chunks must be taken in order.
  PYREG_INLINE Chunk chunk(int64_t begin) {
    if (begin == 0 && row_scales_) {
      row_scale_ = plain_if<kHalf<S>>(*row_scales_++);
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
  using Element = T;
  static constexpr From kFrom = From::scratch;

  explicit DropoutAddRows(const DropoutAddNormForward<T>& a)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        x_(a.x),
        residual_(static_cast<const T*>(a.residual)),
        residual_step_(a.residual_step),
        scratch_(a.scratch),
        z_(a.n, static_cast<T*>(a.z), a.nontemporal) {}

  PYREG_INLINE const T* start_row() { return made_ = row_in_turn(scratch_, row_++, n_); }

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

// The same for 16-bit rows. z has 16 bits too, or is wide.
template <typename S>
class HalfDropoutAddRows {
 public:
  using Element = float;
  static constexpr From kFrom = From::scratch;

  explicit HalfDropoutAddRows(const DropoutAddNormForward<S>& a)
      : a_(a),
        branch_(a.rows, a.n, a.dropout),
        z_(a.n, a.wide ? nullptr : static_cast<S*>(a.z), a.nontemporal),
        wide_z_(a.n, a.wide ? static_cast<float32*>(a.z) : nullptr, a.nontemporal) {}

  PYREG_INLINE const float* start_row() { return made_ = row_in_turn(a_.scratch, ++row_, a_.n); }
  PYREG_INLINE void make(int64_t begin, int64_t end) {
    a_.wide ? make_chunk(begin, end, wide_z_) : make_chunk(begin, end, z_);
  }
  PYREG_INLINE void finish() { a_.wide ? wide_z_.finish() : z_.finish(); }

 private:
  template <typename R>
  PYREG_NOINLINE void make_chunk(int64_t begin, int64_t end, StagedRowWriter<S, R>& writer) {
    float* const made = made_;
    const S* const x = a_.x + row_ * a_.n;
    const R* const residual = static_cast<const R*>(a_.residual) + row_ * a_.residual_step;
    const auto chunk = branch_.chunk(begin);
    const HalfStore<R> z = writer.row() ? writer.chunk(begin) : HalfStore<R>{nullptr};
    each_two_vectors<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      const auto branch = chunk.dropout(vector, vector.load(x)) * chunk.row_scale * vector.load(chunk.layer_scale);
      z.store_rounded(vector, branch + vector.load(residual), made);
      fetch_row<From::cache>(vector, x);
      fetch_row<From::cache>(vector, residual);
    });
    if (end == a_.n) writer.end_row();
  }

  const DropoutAddNormForward<S>& a_;
  BranchRows<S> branch_;
  int64_t row_ = -1;
  float* made_ = nullptr;
  StagedRowWriter<S> z_;
  StagedRowWriter<S, float32> wide_z_;
};

// y and z may each be x or the residual.
template <typename Norm, bool kBias, typename S>
PYREG_INLINE void dropout_add_norm_forward(const DropoutAddNormForward<S>& a) {
  choose_stores<S>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    constexpr bool kNontemporal = is_nontemporal.value;
    std::conditional_t<kHalf<S>, HalfDropoutAddRows<S>, DropoutAddRows<S, kNontemporal>> source(a);
    norm_forward_rows<Norm, kBias, kNontemporal>(a.rows, a.n, source, a.weight, a.bias, a.eps, a.y, a.mean, a.rstd,
                                                 a.scratch + 2 * whole_groups<Compute<S>>(a.n), a.nontemporal);
  });
}

// Computes dresidual, dx and dlayer_scale from the gradient through the norm.
template <typename T, bool kNontemporal>
class DropoutAddGradients {
 public:
  explicit DropoutAddGradients(const DropoutAddNormBackward<T>& a)
      : branch_(a.rows, a.n, a.dropout),
        n_(a.n),
        dz_(static_cast<const T*>(a.dz)),
        dz_step_(a.dz_step),
        x_(a.x),
        dlayer_scale_(a.rows, a.n, a.dlayer_scale),
        dx_(a.n, a.dx, a.nontemporal),
        dresidual_(a.n, static_cast<T*>(a.dresidual), a.nontemporal) {}

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

// The same for 16-bit rows. The gradient through the norm waits in memory until a chunk of it is computed.
template <typename S>
class HalfDropoutAddGradients {
 public:
  explicit HalfDropoutAddGradients(const DropoutAddNormBackward<S>& a)
      : a_(a),
        branch_(a.rows, a.n, a.dropout),
        dlayer_scale_(a.rows, a.n, a.dlayer_scale),
        dx_(a.n, a.dx, a.nontemporal),
        dresidual_(a.n, a.wide ? nullptr : static_cast<S*>(a.dresidual), a.nontemporal),
        wide_dresidual_(a.n, a.wide ? static_cast<float32*>(a.dresidual) : nullptr, a.nontemporal) {}

  struct Chunk {
    float* through_norm;
    int64_t begin;

    template <typename Vector>
    PYREG_INLINE void store(Vector vector, Floats v) const {
      std::memcpy(through_norm + (vector.at - begin), &v, sizeof v);
    }
  };

  PYREG_INLINE Chunk chunk(int64_t begin) {
    if (begin > 0) finish_chunk(begin);
    return {through_norm_, begin};
  }
  PYREG_INLINE void end_row() {
    finish_chunk(a_.n);
    begun_ = 0;
    ++row_;
    dlayer_scale_.end_row();
    dx_.end_row();
    dresidual_.end_row();
    wide_dresidual_.end_row();
  }
  PYREG_INLINE void finish() {
    dx_.finish();
    a_.wide ? wide_dresidual_.finish() : dresidual_.finish();
  }

 private:
  PYREG_INLINE void finish_chunk(int64_t end) {
    a_.wide ? finish_chunk(begun_, end, wide_dresidual_) : finish_chunk(begun_, end, dresidual_);
    begun_ = end;
  }
  template <typename R>
  PYREG_NOINLINE void finish_chunk(int64_t begin, int64_t end, StagedRowWriter<S, R>& writer) {
    const R* const dz = static_cast<const R*>(a_.dz) + row_ * a_.dz_step;
    const S* const x = a_.x ? a_.x + row_ * a_.n : nullptr;
    float *const through_norm = through_norm_ - begin, *const dlayer_scale = dlayer_scale_.target();
    const auto branch = branch_.chunk(begin);
    const HalfStore<S> dx = dx_.chunk(begin);
    const HalfStore<R> dresidual = writer.row() ? writer.chunk(begin) : HalfStore<R>{nullptr};
    each_two_vectors<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      const auto d = vector.load(through_norm) + vector.load(dz);
      if (dlayer_scale) {
        const auto unscaled = branch.dropout(vector, vector.load(x)) * branch.row_scale;
        vector.store(dlayer_scale, vector.load(dlayer_scale) + d * unscaled);
      }
      if (dresidual.row) dresidual.store(vector, d);
      const auto d_branch = d * vector.load(branch.layer_scale) * branch.row_scale;
      dx.store_kept(vector, d_branch * branch.scale, branch.keep, begin);
      fetch_row<From::cache>(vector, dz);
    });
  }

  const DropoutAddNormBackward<S>& a_;
  BranchRows<S> branch_;
  RowAdder<S> dlayer_scale_;
  StagedRowWriter<S> dx_, dresidual_;
  StagedRowWriter<S, float32> wide_dresidual_;
  int64_t row_ = 0, begun_ = 0;
  alignas(kVectorBytes) float through_norm_[kRowChunk];
};

// The source of the backward pass's rows z, widened.
template <typename S>
class HalfRows {
 public:
  using Element = float;
  static constexpr From kFrom = From::scratch;

  explicit HalfRows(const DropoutAddNormBackward<S>& a) : a_(a) {}

  PYREG_INLINE const float* start_row() { return made_ = row_in_turn(a_.scratch, ++row_, a_.n); }
  PYREG_INLINE void make(int64_t begin, int64_t end) {
    a_.wide ? make_from(static_cast<const float32*>(a_.z), begin, end)
            : make_from(static_cast<const S*>(a_.z), begin, end);
  }

 private:
  template <typename R>
  PYREG_NOINLINE void make_from(const R* z, int64_t begin, int64_t end) {
    float* const made = made_;
    const R* const row = z + row_ * a_.n;
    each_two_vectors<S>(begin, end, [&](auto vector) PYREG_LAMBDA {
      vector.store(made, vector.load(row));
      fetch_row<From::cache>(vector, row);
    });
  }

  const DropoutAddNormBackward<S>& a_;
  int64_t row_ = -1;
  float* made_ = nullptr;
};

// dx and dresidual may each be dy, dz, z or x.
template <typename Norm, typename S>
PYREG_INLINE void dropout_add_norm_backward(const DropoutAddNormBackward<S>& a) {
  choose_stores<S>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    constexpr bool kNontemporal = is_nontemporal.value;
    const auto run = [&](auto rows, auto& gradients) PYREG_LAMBDA {
      norm_backward_rows<Norm, true, kNontemporal>(a.rows, a.n, a.dy, rows, a.mean, a.rstd, a.weight, gradients,
                                                   a.dweight, a.dbias, a.scratch);
    };
    if constexpr (kHalf<S>) {
      HalfDropoutAddGradients<S> gradients(a);
      run(HalfRows<S>(a), gradients);
    } else {
      DropoutAddGradients<S, kNontemporal> gradients(a);
      run(StoredRows<S, kNontemporal>(a.n, static_cast<const S*>(a.z)), gradients);
    }
  });
}

template <typename S>
void dropout_add_layer_norm_forward(const DropoutAddNormForward<S>& arguments) {
  dropout_add_norm_forward<LayerNorm<S>, true>(arguments);
}

template <typename S>
void dropout_add_layer_norm_backward(const DropoutAddNormBackward<S>& arguments) {
  dropout_add_norm_backward<LayerNorm<S>>(arguments);
}

template <typename S>
void dropout_add_rms_norm_forward(const DropoutAddNormForward<S>& arguments) {
  dropout_add_norm_forward<RmsNorm<S>, false>(arguments);
}

template <typename S>
void dropout_add_rms_norm_backward(const DropoutAddNormBackward<S>& arguments) {
  dropout_add_norm_backward<RmsNorm<S>>(arguments);
}

}  // namespace
}  // namespace pyreg
