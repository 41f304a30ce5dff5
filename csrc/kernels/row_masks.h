// The dropout masks, chunk by chunk, of rows that are consecutive in the random stream.
#pragma once

#include "kernels/chunk_mask.h"
#include "kernels/row_sums.h"

namespace pyreg {
namespace {

// A chunk of a row that is moved to the start of a cache line, and the vector that may be read beyond it.
constexpr int kMaskedChunk = kRowChunk + 2 * kMaskBeyond;

struct SameBytes {
  uint8_t byte[kMaskedChunk];
};

constexpr SameBytes same_bytes(uint8_t value) {
  SameBytes bytes{};
  for (uint8_t& byte : bytes.byte) byte = value;
  return bytes;
}

constexpr SameBytes kAllKept = same_bytes(0xff), kAllDropped = same_bytes(0);

// The mask is made in segments: as many whole rows as fit into a ChunkMask, or a part of a longer row. While one
// segment is used, the next one is made.
class RowMasks {
 public:
  // For rows of n from `offset` on in the random stream.
  RowMasks(int64_t rows, int64_t n, uint64_t threshold, uint64_t key, uint64_t offset)
      : threshold_(threshold), key_(key), n_(n), rows_left_(rows), offset_(offset) {
    same_ = threshold == 0 ? kAllKept.byte : threshold == kDropAll || n == 0 ? kAllDropped.byte : nullptr;
    if (same_) return;
    start_next();
  }

  RowMasks(const RowMasks&) = delete;

  // The mask of the chunk that begins at `begin` of its row, and up to kMaskBeyond elements beyond it within the row.
  // Byte i - begin is 0xff if element i of the row is kept, and 0 if it is dropped. Chunks must be taken in order.
  PYREG_NOINLINE const uint8_t* chunk(int64_t begin) {
    if (same_) return same_;
    if (used_ == count_) advance();
    const uint8_t* const keep = mask_->kept() + used_;
    used_ += static_cast<int>(n_ - begin < kRowChunk ? n_ - begin : kRowChunk);
    for (int made = 0; made < kRowChunk && next_->unmade(); made += kBatch) next_->make_batch();
    return keep;
  }

  // The factor for kept elements.
  template <typename T>
  T scale() const {
    return dropout_scale<T>(threshold_);
  }

 private:
  void advance() {
    next_->finish();
    ChunkMask* const made = next_;
    next_ = mask_;
    mask_ = made;
    used_ = 0;
    count_ = next_count_;
    start_next();
  }

  // Starts the next segment; an empty one after the last.
  void start_next() {
    int64_t beyond = 0;
    if (n_ <= kChunk) {
      const int64_t rows = kChunk / n_ < rows_left_ ? kChunk / n_ : rows_left_;
      rows_left_ -= rows;
      next_count_ = static_cast<int>(rows * n_);
    } else if (rows_left_ > 0) {
      const int64_t left = n_ - column_;
      next_count_ = static_cast<int>(left < kChunk ? left : kChunk);
      beyond = left - next_count_ < kMaskBeyond ? left - next_count_ : kMaskBeyond;
      column_ += next_count_;
      if (column_ == n_) column_ = 0, --rows_left_;
    } else {
      next_count_ = 0;
    }
    next_->start(offset_, static_cast<int>(next_count_ + beyond), threshold_, key_);
    offset_ += next_count_;
  }

  const uint8_t* same_;  // every chunk's mask if all elements are kept or all dropped, else null
  uint64_t threshold_, key_;
  int64_t n_, rows_left_, column_ = 0;  // rows_left_, column_: where the next segment starts
  uint64_t offset_;
  int used_ = 0, count_ = 0, next_count_ = 0;
  ChunkMask masks_[2];
  ChunkMask *mask_ = &masks_[0], *next_ = &masks_[1];
};

// Stores v where `keep` is 0xff, and +0 where it is 0. keep: from the row's element `begin` on.
template <typename S, typename Target, typename Vector, typename Value>
PYREG_INLINE void store_kept(const Target& target, Vector vector, Value v, const uint8_t* keep, int64_t begin) {
  if constexpr (kHalf<S>)
    target.store_kept(vector, v, keep, begin);
  else
    target.store(vector, where_kept<S>(v, kept_lanes<S>(vector, keep, begin)));
}

// Writes a row of value(vector) where it is kept, and of +0 where it is dropped.
template <typename S, typename Results, typename Value>
PYREG_INLINE void write_masked_row(Results& results, RowMasks& masks, Value value) {
  const uint8_t* keep = nullptr;
  int64_t chunk_begin = 0;
  results.write_row(
      [&](int64_t begin, const MovedChunk&) PYREG_LAMBDA {
        keep = masks.chunk(begin);
        chunk_begin = begin;
      },
      [&](const auto& target, auto vector)
          PYREG_LAMBDA { store_kept<S>(target, vector, value(vector), keep, chunk_begin); });
}

}  // namespace
}  // namespace pyreg
