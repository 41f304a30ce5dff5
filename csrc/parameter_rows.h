// Parameters and their gradients: rows of n, which the kernels of S read and write in the compute type.
//
// Beside 16-bit S they may have 16 bits too. They are converted once a call, to the order that the kernels need
// (kernels/half.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "arguments.h"
#include "dispatch.h"
#include "neutral_rows.h"
#include "row_blocks.h"

namespace pyreg {

// A row of parameters, or a neutral one if none is given.
template <typename S>
class ParameterRow {
  using T = Compute<S>;

 public:
  ParameterRow(const Array& given, int64_t n, double neutral)
      : neutral_(given ? 0 : parameter_elements<S>(n), neutral), row_(given ? given.as<T>() : neutral_.get()) {
    if constexpr (kHalf<S>) {
      if (!given) return;
      const int64_t elements = parameter_elements<S>(n);
      memory_.reset(new T[elements]);
      std::fill(memory_.get() + std::max<int64_t>(0, elements - kGroup), memory_.get() + elements, T{0});
      if (given.type == Type::float32)
        kernels<S>().floats_to_vectors(n, given.as<const float32>(), memory_.get());
      else
        kernels<S>().to_vectors(n, given.as<const S>(), memory_.get());
      row_ = memory_.get();
    }
  }

  const T* get() const { return row_; }

 private:
  static constexpr int64_t kGroup = kGroupBytes / sizeof(T);

  NeutralRow<T> neutral_;
  const T* row_;
  std::unique_ptr<T[]> memory_;
};

// Where the gradient of a row of parameters is summed: of floats and doubles, in the result itself.
template <typename S>
class ParameterGradient {
  using T = Compute<S>;

 public:
  ParameterGradient(const Result& result, const Array& parameter, int64_t n)
      : result_(result), type_(parameter.type), n_(n), total_(result.as<T>()) {
    if constexpr (kHalf<S>) {
      if (!result.data) return;
      memory_.reset(new T[parameter_elements<S>(n)]);
      total_ = memory_.get();
    }
  }

  T* total() const { return total_; }
  void finish() const {
    if constexpr (kHalf<S>) {
      if (!total_) return;
      if (type_ == Type::float32)
        kernels<S>().floats_from_vectors(n_, total_, result_.as<float32>());
      else
        kernels<S>().from_vectors(n_, total_, result_.as<S>());
    }
  }

 private:
  Elements result_;
  Type type_;
  int64_t n_;
  T* total_;
  std::unique_ptr<T[]> memory_;
};

// A backward pass over `rows` rows that sums such gradients over them, of n elements, or 0 if there are none: see
// row_blocks.h. dx: where the kernel writes.
template <typename S, size_t kSums, typename Body>
void sum_over_rows(int64_t rows, int64_t n, int64_t bytes, const Elements& dx,
                   const ParameterGradient<S>* const (&gradients)[kSums], int64_t more, Body body) {
  using T = Compute<S>;
  T* totals[kSums];
  for (size_t i = 0; i < kSums; ++i) totals[i] = gradients[i]->total();
  sum_blocks_over_rows<T>(rows, parameter_elements<S>(n), bytes, kHalf<S> ? nullptr : dx.as<const T>(), totals, more,
                          body);
  for (const ParameterGradient<S>* gradient : gradients) gradient->finish();
}

// A parameter with one element per row, in its order.
template <typename S>
class RowParameter {
  using T = Compute<S>;

 public:
  explicit RowParameter(const Array& given) : elements_(given.as<T>()) {
    if constexpr (kHalf<S>) {
      if (!given || given.type == Type::float32) return;
      memory_.reset(new T[given.size]);
      kernels<S>().widen(given.size, given.as<const S>(), memory_.get());
      elements_ = memory_.get();
    }
  }

  // From element `at` on; null if there is none.
  const T* from(int64_t at) const { return elements_ ? elements_ + at : nullptr; }
  explicit operator bool() const { return elements_ != nullptr; }

 private:
  const T* elements_;
  std::unique_ptr<T[]> memory_;
};

}  // namespace pyreg
