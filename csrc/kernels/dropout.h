// Inverted dropout (Srivastava et al., JMLR 15, 2014).
#pragma once

#include "kernels/chunk_mask.h"
#include "kernels/row_masks.h"
#include "kernels/row_writer.h"

namespace pyreg {
namespace {

// y[i] = x[i] * scale if keep[i], else +0. kNontemporal: y starts on a cache line.
template <typename T, bool kNontemporal = false>
PYREG_INLINE void apply_mask(int count, const uint8_t* keep, const T* x, T scale, T* y) {
  using vec = typename Native<T>::vec;
  constexpr int kWidth = kVectorBytes / sizeof(T);
  int i = 0;
  PYREG_UNROLL
  for (; i + kWidth <= count; i += kWidth) {
    vec value;
    std::memcpy(&value, x + i, sizeof value);
    value = masked<T>(value, scale, widen_mask<T>(keep + i));
    if constexpr (kNontemporal)
      store_nontemporal(y + i, value);
    else
      std::memcpy(y + i, &value, sizeof value);
  }
  for (; i < count; ++i) y[i] = keep[i] ? x[i] * scale : T{0};
}

// How many bytes ahead x is prefetched into the second-level cache, and y is prefetched for writing. If x were
// further ahead, the prefetches of a large array would take up the buffers that stores past the caches need.
constexpr int kReadAhead = 2048, kWriteAhead = 4096;

// While the mask is applied to a chunk, the next chunk's mask is made and its x is prefetched. The arithmetic of one
// fills the time in which the other waits for memory.
template <typename T, bool kNontemporal>
void dropout_elements(int64_t n, const T* x, uint64_t threshold, uint64_t key, uint64_t offset, T* y) {
  const T scale = dropout_scale<T>(threshold);
  // All chunks but the first start on a cache line of y: among lines written past the caches, one that has to be read
  // before it is written would hold up the others.
  const int lead = static_cast<int>(to_next_line(y));
  const auto chunk_at = [=](int64_t at) {
    const int whole = at == 0 && lead > 0 ? lead + kChunk - kBatch : kChunk;
    return static_cast<int>(n - at < whole ? n - at : whole);
  };
  ChunkMask masks[2];
  ChunkMask *mask = &masks[0], *next = &masks[1];
  next->start(offset, chunk_at(0), threshold, key);
  next->finish();
  for (int64_t at = 0; at < n;) {
    ChunkMask* const made = next;
    next = mask;
    mask = made;
    const int count = chunk_at(at);
    next->start(offset + at + count, chunk_at(at + count), threshold, key);
    const uint8_t* keep = mask->kept();
    const T* source = x + at;
    T* target = y + at;

    int i = at > 0 ? 0 : lead < count ? lead : count;
    apply_mask(i, keep, source, scale, target);
    for (; i + kBatch <= count; i += kBatch) {
      PYREG_UNROLL
      for (int line = 0; line < kBatch; line += kLineBytes / sizeof(T)) {
        __builtin_prefetch(source + i + line + kReadAhead / sizeof(T), 0, 2);
        if constexpr (!kNontemporal) __builtin_prefetch(target + i + line + kWriteAhead / sizeof(T), 1);
      }
      if (next->unmade()) next->make_batch();
      apply_mask<T, kNontemporal>(kBatch, keep + i, source + i, scale, target + i);
    }
    apply_mask(count - i, keep + i, source + i, scale, target + i);

    next->finish();
    at += count;
  }
  if constexpr (kNontemporal) nontemporal_fence();
}

// The same for 16-bit elements. The mask is applied to what they are narrowed to, where it takes half the vectors.
template <typename S>
void dropout_halves(int64_t n, const S* x, uint64_t threshold, uint64_t key, uint64_t offset, S* y,
                    bool nontemporal) {
  const float scale = dropout_scale<float>(threshold);
  StagedRowWriter<S> results(n, y, nontemporal);
  ChunkMask masks[2];
  ChunkMask *mask = &masks[0], *next = &masks[1];
  const auto chunk_at = [=](int64_t at) {
    return static_cast<int>(n - at < kChunk ? n - at : kChunk);
  };
  next->start(offset, chunk_at(0), threshold, key);
  next->finish();
  for (int64_t at = 0; at < n; at += kChunk) {
    ChunkMask* const made = next;
    next = mask;
    mask = made;
    const int64_t end = at + chunk_at(at);
    next->start(offset + end, chunk_at(end), threshold, key);
    for (int64_t begin = at; begin < end; begin += kRowChunk) {
      for (int batch = 0; batch < kRowChunk && next->unmade(); batch += kBatch) next->make_batch();
      const HalfStore<S> target = results.chunk(begin);
      const uint8_t* const keep = mask->kept() + (begin - at);
      each_two_vectors<S>(begin, begin + kRowChunk < end ? begin + kRowChunk : end, [&](auto vector) PYREG_LAMBDA {
        fetch_ahead<kReadAhead, 2>(vector, x);
        target.store_kept(vector, vector.load(x) * scale, keep, begin);
      });
    }
    next->finish();
  }
  results.end_row();
  results.finish();
}

// The same for doubles, with less code.
inline void dropout_doubles(int64_t n, const double* x, uint64_t threshold, uint64_t key, uint64_t offset, double* y,
                            bool nontemporal) {
  RowMasks masks(1, n, threshold, key, offset);
  const auto scale = masks.scale<double>();
  StagedRowWriter<double> results(n, y, nontemporal);
  write_masked_row<double>(results, masks, [&](auto vector) PYREG_LAMBDA {
    fetch_ahead<kReadAhead, 2>(vector, x);
    return vector.load(x) * scale;
  });
  results.finish();
}

// x, y (n); y may be x. offset: the position of x[0] in the random stream.
template <typename S>
void dropout(int64_t n, const S* x, uint64_t threshold, uint64_t key, uint64_t offset, S* y, bool nontemporal) {
  if (threshold == kDropAll) {
    std::memset(y, 0, n * sizeof(S));
  } else if (threshold == 0) {
    if (y != x) std::memcpy(y, x, n * sizeof(S));
  } else if constexpr (kHalf<S>) {
    dropout_halves(n, x, threshold, key, offset, y, nontemporal);
  } else if constexpr (kLessCode<S>) {
    dropout_doubles(n, x, threshold, key, offset, y, nontemporal);
  } else {
    const auto run = nontemporal ? dropout_elements<S, true> : dropout_elements<S, false>;
    run(n, x, threshold, key, offset, y);
  }
}

// kept (n): 1 if the element is kept, else 0.
inline void dropout_mask(int64_t n, uint64_t threshold, uint64_t key, uint64_t offset, uint8_t* kept) {
  if (threshold == kDropAll || threshold == 0) {
    std::memset(kept, threshold == 0, n);
    return;
  }
  ChunkMask mask;
  for (int64_t at = 0; at < n; at += kChunk) {
    const int count = static_cast<int>(n - at < kChunk ? n - at : kChunk);
    mask.start(offset + at, count, threshold, key);
    mask.finish();
    for (int i = 0; i < count; ++i) kept[at + i] = mask.kept()[i] & 1;
  }
}

}  // namespace
}  // namespace pyreg
