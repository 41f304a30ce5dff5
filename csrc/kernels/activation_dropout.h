// Activations followed by dropout.
//
// Each activation is its input times a curve that runs from 0 to 1: a step for ReLU, the logistic function for SiLU
// (Elfwing et al., 2018, arXiv:1702.03118), the normal distribution for GELU (Hendrycks and Gimpel, 2016,
// arXiv:1606.08415). (1 + tanh(u)) / 2 is the logistic function of 2 * u, so the curve of GELU's tanh approximation
// is the logistic function of another argument.
//
//   forward    y = dropout(activation(x + bias))
//   backward   dx = dropout(dy * activation'(x + bias)),  dbias = sum over rows of dx
//              for ReLU from y too, which is positive where x was and is kept: dx = y <= 0 ? 0 : dy * scale
#pragma once

#include "kernels/elementary.h"
#include "kernels/row_adder.h"
#include "kernels/row_masks.h"
#include "kernels/row_writer.h"
#include "kernels/table.h"

namespace pyreg {
namespace {

template <typename T>
struct Relu {
  using vec = typename Native<T>::vec;
  static PYREG_INLINE vec value(vec h) { return h <= T{0} ? vec{} : h; }
  static PYREG_INLINE vec gradient(vec dy, vec h) { return h <= T{0} ? vec{} : dy; }
};

// Clamps h in case it is infinite: 0 * low is 0, but 0 * -inf would be NaN.
template <typename T>
PYREG_INLINE typename Native<T>::vec at_least(T low, typename Native<T>::vec h) {
  return h < low ? typename Native<T>::vec{} + low : h;
}

template <typename T>
PYREG_INLINE typename Native<T>::vec at_most(T high, typename Native<T>::vec h) {
  return h > high ? typename Native<T>::vec{} + high : h;
}

template <typename T>
struct Silu {
  using vec = typename Native<T>::vec;
  static constexpr T kLowest = Constants<T>::kLowest;

  static PYREG_INLINE vec value(vec h) {
    h = at_least(kLowest, h);
    return h * sigmoid<T>(h).first;
  }
  static PYREG_INLINE vec gradient(vec dy, vec h) {
    h = at_most(-kLowest, at_least(kLowest, h));
    const auto [s, rest] = sigmoid<T>(h);
    return dy * (s * (h * rest + T{1}));
  }
};

template <typename T>
struct Gelu {
  using vec = typename Native<T>::vec;
  static constexpr T kFar = Constants<T>::kFar;

  static PYREG_INLINE vec value(vec h) {
    h = at_least(-kFar, h);
    return h * normal<T>(h).first;
  }
  static PYREG_INLINE vec gradient(vec dy, vec h) {
    constexpr T kDensity = static_cast<T>(0.3989422804014327);  // 1 / sqrt(2 pi)
    h = at_most(kFar, at_least(-kFar, h));
    const auto [below, density] = normal<T>(h);
    return dy * (h * (density * kDensity) + below);
  }
};

template <typename T>
struct GeluTanh {
  using vec = typename Native<T>::vec;
  static constexpr T kFar = Constants<T>::kFar;
  static constexpr double kScale64 = 1.5957691216057308, kCubic64 = kScale64 * 0.044715;  // 2 * sqrt(2 / pi)
  static constexpr T kScale = static_cast<T>(kScale64), kCubic = static_cast<T>(kCubic64);

  static PYREG_INLINE vec value(vec h) {
    h = at_least(-kFar, h);
    return h * sigmoid<T>(h * (h * h * kCubic + kScale)).first;
  }
  static PYREG_INLINE vec gradient(vec dy, vec h) {
    h = at_most(kFar, at_least(-kFar, h));
    const auto [s, rest] = sigmoid<T>(h * (h * h * kCubic + kScale));
    const vec slope = h * h * static_cast<T>(3 * kCubic64) + kScale;
    return dy * (s * (h * rest * slope + T{1}));
  }
};

// Writes to `values` what dropout is applied to, for the elements from, ..., to - 1 of the row that begins at element
// `row`. May write up to a vector more.
template <typename S>
using FillChunk = void (*)(const ActivationDropout<S>& a, int64_t row, int64_t from, int64_t to, Compute<S>* values);

template <typename T, typename Curve, bool kBackward>
void fill_chunk(const ActivationDropout<T>& a, int64_t row, int64_t from, int64_t to, T* values) {
  const T *const x = a.x + row, *const dy = kBackward ? a.dy + row : nullptr, *const bias = a.bias;
  const auto body = [&](auto vector) PYREG_LAMBDA {
    const auto h = vector.load(x) + vector.load(bias);
    const auto value = [&] {
      if constexpr (kBackward) return Curve::gradient(vector.load(dy), h);
      return Curve::value(h);
    }();
    std::memcpy(values + (vector.at - from), &value, sizeof value);
  };
  constexpr int kWidth = Group<T>::kWidth;
  for (int64_t at = from; at < to; at += kWidth) {
    if (at + kWidth <= a.n)
      body(WholeVector<T>{at, 0, true});
    else
      body(PartVector<T>{at, 0, static_cast<int>(a.n - at)});
  }
}

// The same for 16-bit elements, in two steps: what they have in common with each other is so compiled once.
template <typename S>
PYREG_NOINLINE void widen_chunk(const ActivationDropout<S>& a, int64_t row, int64_t from, int64_t to, float* h,
                                float* dh) {
  const S *const x = a.x + row, *const dy = a.dy ? a.dy + row : nullptr;
  const float* const bias = a.bias;
  each_two_vectors<S>(from, to, [&](auto vector) PYREG_LAMBDA {
    const Floats sum = vector.load(x) + vector.load(bias);
    std::memcpy(h + (vector.at - from), &sum, sizeof sum);
    if (!dy) return;
    const Floats gradient = vector.load(dy);
    std::memcpy(dh + (vector.at - from), &gradient, sizeof gradient);
  });
}

template <typename Curve, bool kBackward>
PYREG_NOINLINE void apply_curve(int64_t count, float* h, const float* dh) {
  for (int64_t at = 0; at < count; at += kFloats) {
    const WholeVector<float> vector{at, 0, true};
    if constexpr (kBackward)
      vector.store(h, Curve::gradient(vector.load(dh), vector.load(h)));
    else
      vector.store(h, Curve::value(vector.load(h)));
  }
}

template <typename S, typename Curve, bool kBackward>
  requires kHalf<S>
void fill_chunk(const ActivationDropout<S>& a, int64_t row, int64_t from, int64_t to, float* values) {
  if constexpr (std::is_same_v<Curve, Relu<float>>) {  // too short for a second loop
    const S *const x = a.x + row, *const dy = kBackward ? a.dy + row : nullptr;
    const float* const bias = a.bias;
    each_two_vectors<S>(from, to, [&](auto vector) PYREG_LAMBDA {
      Floats value = vector.load(x) + vector.load(bias);
      if constexpr (kBackward)
        value = Curve::gradient(vector.load(dy), value);
      else
        value = Curve::value(value);
      std::memcpy(values + (vector.at - from), &value, sizeof value);
    });
    return;
  }
  alignas(kVectorBytes) float dh[kRowChunk];
  widen_chunk(a, row, from, to, values, dh);
  apply_curve<Curve, kBackward>(row_elements<S>(to - from), values, dh);
}

template <typename S, bool kNontemporal>
void activation_dropout_rows(const ActivationDropout<S>& a, FillChunk<S> fill) {
  using T = Compute<S>;
  RowAdder<S> dbiases(a.rows, a.n, a.dbias);
  RowMasks masks(a.rows, a.n, a.threshold, a.key, a.offset);
  const T scale = masks.scale<T>();
  RowWriter<S, kNontemporal> results(a.n, a.y, a.nontemporal);
  alignas(kVectorBytes) T values[kMaskedChunk + kStep<S>];
  for (int64_t r = 0; r < a.rows; ++r) {
    const uint8_t* keep = nullptr;
    int64_t chunk_begin = 0, from = 0;
    T* const dbias = dbiases.target();
    results.write_row(
        [&](int64_t begin, const MovedChunk& moved) PYREG_LAMBDA {
          keep = masks.chunk(begin);
          chunk_begin = begin, from = moved.begin;
          fill(a, r * a.n, moved.begin, moved.end, values);
        },
        [&](const auto& target, auto vector) PYREG_LAMBDA {
          typename Native<T>::vec value;
          std::memcpy(&value, values + (vector.at - from), sizeof value);
          value = value * scale;
          if (dbias) {
            const auto kept = where_kept<T>(value, kept_lanes<T>(vector, keep, chunk_begin));
            vector.store(dbias, vector.load(dbias) + kept);
          }
          store_kept<S>(target, vector, value, keep, chunk_begin);
        });
    dbiases.end_row();
  }
  results.finish();
}

template <typename S, typename Curve>
constexpr FillChunk<S> kFill[] = {fill_chunk<S, Curve, false>, fill_chunk<S, Curve, true>};

// y may be x or dy.
template <typename S>
void activation_dropout(const ActivationDropout<S>& a) {
  using T = Compute<S>;
  const auto fill = [&] {
    const int backward = a.dy != nullptr;
    switch (a.activation) {
      case Activation::relu:
        return kFill<S, Relu<T>>[backward];
      case Activation::silu:
        return kFill<S, Silu<T>>[backward];
      case Activation::gelu:
        return kFill<S, Gelu<T>>[backward];
      default:
        return kFill<S, GeluTanh<T>>[backward];
    }
  }();
  choose_stores<S>(a.nontemporal, a.rows, a.n, [&](auto is_nontemporal) PYREG_LAMBDA {
    activation_dropout_rows<S, is_nontemporal.value>(a, fill);
  });
}

template <typename S, bool kSum, bool kNontemporal>
void relu_dropout_backward_rows(int64_t rows, int64_t n, const S* dy, const S* y, uint64_t threshold, S* dx,
                                const ColumnSum<Compute<S>>& dbias_sum, bool nontemporal) {
  using T = Compute<S>;
  RowAdder<S> dbiases(rows, n, dbias_sum);
  RowWriter<S, kNontemporal> gradient(n, dx, nontemporal);
  const T scale = dropout_scale<T>(threshold);
  for (int64_t r = 0; r < rows; ++r, dy += n, y += n) {
    T* const dbias = dbiases.target();
    gradient.write_elements([&](auto vector) PYREG_LAMBDA {
      const auto value = vector.load(y) <= T{0} ? typename Native<T>::vec{} : vector.load(dy) * scale;
      if constexpr (kSum) vector.store(dbias, vector.load(dbias) + value);
      fetch_row<kFromInput<kNontemporal>>(vector, dy);
      fetch_row<kFromInput<kNontemporal>>(vector, y);
      return value;
    });
    dbiases.end_row();
  }
  gradient.finish();
}

// dy, y, dx (rows, n); dbias: null if it is not wanted. dx may be dy or y.
template <typename S>
void relu_dropout_backward(int64_t rows, int64_t n, const S* dy, const S* y, uint64_t threshold, S* dx,
                           const ColumnSum<Compute<S>>& dbias, bool nontemporal) {
  choose_stores<S>(nontemporal, rows, n, [&](auto is_nontemporal) PYREG_LAMBDA {
    const auto run = dbias.total ? relu_dropout_backward_rows<S, true, is_nontemporal.value>
                                 : relu_dropout_backward_rows<S, false, is_nontemporal.value>;
    run(rows, n, dy, y, threshold, dx, dbias, nontemporal);
  });
}

}  // namespace
}  // namespace pyreg
