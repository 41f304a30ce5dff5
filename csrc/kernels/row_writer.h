// Writes rows of results (rows, n) one after the other, with ordinary stores or past the caches. Past the caches, a
// cache line that holds the end of one row and the start of the next is assembled here and then stored whole: a line
// that has to be read before it is written would hold up the others.
#pragma once

#include <type_traits>

#include "kernels/row_sums.h"

namespace pyreg {
namespace {

template <typename T, bool kNontemporal>
class RowWriter {
 public:
  // row: the first row, or null if nothing is to be written.
  RowWriter(int64_t n, T* row, [[maybe_unused]] bool nontemporal = kNontemporal) : n_(n), row_(row) {}

  RowWriter(const RowWriter&) = delete;

  // The row that is being written, and the number of its elements before a cache line starts.
  PYREG_INLINE T* row() const { return row_; }
  PYREG_INLINE int64_t lead() const { return to_next_line(row_); }

  // That row, for a chunk of it. The pointer is copied, so it stays in a register.
  struct Chunk {
    T* row;
    RowWriter& writer;

    template <typename Vector>
    PYREG_INLINE void store(Vector vector, typename Native<T>::vec v) const {
      if constexpr (kNontemporal)
        writer.store_past_caches(row, vector, v);
      else
        vector.store(row, v);
    }
  };
  PYREG_INLINE Chunk chunk(int64_t) { return {row_, *this}; }

  // Called when all of the row is stored.
  PYREG_INLINE void end_row() {
    if constexpr (kNontemporal) {
      if (lead() > 0 && started_)
        write_line(first_line_, row_ - (kLine - lead()));
      else  // the line's first part is not this writer's
        std::memcpy(row_, first_line_ + (kLine - lead()) % kLine, lead() * sizeof(T));
      std::memcpy(first_line_, last_line_, sizeof first_line_);
      started_ = true;
    }
    row_ += n_;
  }

  // Called when all rows are stored.
  PYREG_INLINE void finish() {
    if constexpr (kNontemporal) {
      const int64_t rest = (kLine - lead()) % kLine;  // the line's last part is not this writer's
      std::memcpy(row_ - rest, first_line_, rest * sizeof(T));
      nontemporal_fence();
    }
  }

  // Writes a row chunk by chunk. Calls make(begin, moved) for each chunk, then put(chunk, vector) for the vectors of
  // the moved chunk, which stores them.
  template <typename Make, typename Put>
  PYREG_INLINE void write_row(Make make, Put put) {
    // With ordinary stores there is no lead: the vectors that are read from the scratch are then the same that were
    // written to it just before. Others would have to wait until those writes are through.
    const int64_t lead = kNontemporal ? this->lead() : 0;
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      make(begin, MovedChunk(begin, end, n_, lead));
      const Chunk target = chunk(begin);
      each_vector_of_chunk<T>(begin, end, n_, lead, [&](auto vector) PYREG_LAMBDA { put(target, vector); });
    });
    end_row();
  }

  // Writes a row of value(vector) at once.
  template <typename Value>
  PYREG_INLINE void write_elements(Value value) {
    each_vector_from_line<T>(0, n_, lead(), [&](auto vector) PYREG_LAMBDA { chunk(0).store(vector, value(vector)); });
    end_row();
  }

 private:
  static constexpr int kLine = line_elements<T>();

  template <typename Vector>
  PYREG_INLINE void store_past_caches(T* row, Vector vector, typename Native<T>::vec v) {
    if constexpr (Vector::kWhole) {
      if (vector.in_line) return store_nontemporal(row + vector.at, v);
    }
    // Elements before the lead belong to the line in which the previous row ended.
    T* const line = vector.at < lead() ? first_line_ : last_line_;
    vector.store_at(line + (kLine - to_next_line(row + vector.at)) % kLine, v);
  }

  static PYREG_INLINE void write_line(const T* line, T* target) {
    for (int i = 0; i < kLine; i += Group<T>::kWidth) {
      typename Native<T>::vec v;
      std::memcpy(&v, line + i, sizeof v);
      store_nontemporal(target + i, v);
    }
  }

  int64_t n_;
  T* row_;
  // The cache lines in which the row begins and in which it ends.
  alignas(kLineBytes) T first_line_[kLine], last_line_[kLine];
  bool started_ = false;
};

// Stores vectors of whole elements to a row.
template <typename E>
struct WholeStore {
  E* row;
  bool past_caches = false;

  template <typename Vector>
  PYREG_INLINE void store(Vector vector, typename Native<E>::vec v) const {
    if constexpr (Vector::kWhole)
      store_either(row + vector.at, v, past_caches);
    else
      vector.store(row, v);
  }
};

// The same with less code: one loop serves both kinds of stores. Past the caches, vectors are stored as they come if
// rows are whole lines and start on one. Otherwise, and always if they are float32 beside 16-bit S, a chunk is
// written to the stage, from where its whole lines are stored. E: S, or that float32.
template <typename S, typename E = S>
class StagedRowWriter {
 public:
  using Chunk = std::conditional_t<kHalf<S>, HalfStore<E>, WholeStore<E>>;

  StagedRowWriter(int64_t n, E* row, bool nontemporal)
      : n_(n),
        row_(row),
        nontemporal_(nontemporal && row),
        lead_((kLine - to_next_line(row)) % kLine),
        direct_(std::is_same_v<E, S> && nontemporal_ && lead_ == 0 && n % kLine == 0),
        staged_(lead_) {}

  StagedRowWriter(const StagedRowWriter&) = delete;

  PYREG_INLINE E* row() const { return row_; }
  PYREG_INLINE int64_t lead() const { return 0; }

  // Chunks must be written in order.
  PYREG_INLINE Chunk chunk(int64_t begin) {
    if (!nontemporal_ || direct_) return {row_, direct_};
    put_away(begin);
    return {stage_ + staged_ - begin};
  }

  PYREG_INLINE void end_row() {
    if (nontemporal_ && !direct_) {
      put_away(n_);
      begun_ = 0;
    }
    if (row_) row_ += n_;
  }

  PYREG_INLINE void finish() {
    if (!nontemporal_) return;
    if (!direct_) std::memcpy(row_ - (staged_ - lead_), stage_ + lead_, (staged_ - lead_) * sizeof(E));
    nontemporal_fence();
  }

  template <typename Value>
  PYREG_INLINE void write_elements(Value value) {
    write_row([](int64_t, const MovedChunk&) PYREG_LAMBDA {},
              [&](const auto& target, auto vector) PYREG_LAMBDA { target.store(vector, value(vector)); });
  }
  template <typename Make, typename Put>
  PYREG_INLINE void write_row(Make make, Put put) {
    each_chunk(n_, [&](int64_t begin, int64_t end) PYREG_LAMBDA {
      make(begin, MovedChunk(begin, end, n_, 0));
      const Chunk target = chunk(begin);
      each_vector_from_line<S>(begin, end, 0, [&](auto vector) PYREG_LAMBDA { put(target, vector); });
    });
    end_row();
  }

 private:
  static constexpr int64_t kLine = kLineBytes / sizeof(E);

  // Stores the whole lines of what is staged, now that the row is written up to `end`.
  PYREG_NOINLINE void put_away(int64_t end) {
    E* target = row_ + begun_ - staged_;  // where stage_[0] belongs
    staged_ += end - begun_;
    begun_ = end;
    int64_t at = 0;
    for (; at + kLine <= staged_; at += kLine) {
      if (lead_ > 0) {  // the line's first part is not this writer's
        std::memcpy(target + lead_, stage_ + lead_, (kLine - lead_) * sizeof(E));
        lead_ = 0;
        continue;
      }
      for (int64_t i = 0; i < kLineBytes; i += kVectorBytes) {
        Floats v;
        std::memcpy(&v, reinterpret_cast<const char*>(stage_ + at) + i, sizeof v);
        store_nontemporal(reinterpret_cast<float*>(reinterpret_cast<char*>(target + at) + i), v);
      }
    }
    if (at == 0) return;
    staged_ -= at;
    std::memcpy(stage_, stage_ + at, kLineBytes);
  }

  int64_t n_;
  E* row_;
  bool nontemporal_;
  // lead_: elements of the stage before the first that is this writer's; staged_: elements in it; begun_: where in
  // the row the chunk begins that is being written.
  int64_t lead_;
  bool direct_;  // vectors are stored past the caches without the stage
  int64_t staged_, begun_ = 0;
  alignas(kLineBytes) E stage_[kRowChunk + 3 * kLine];
};

template <typename S>
  requires kLessCode<S>
class RowWriter<S, false> : public StagedRowWriter<S> {
  using StagedRowWriter<S>::StagedRowWriter;
};

// For floats: calls run(Flag<true>{}) if `rows` rows of n are to be written past the caches and are long enough,
// otherwise run(Flag<false>{}).
template <typename T, typename Run>
PYREG_INLINE void choose_stores(bool nontemporal, int64_t rows, int64_t n, Run run) {
  if constexpr (kLessCode<T>) {  // StagedRowWriter knows both
    run(Flag<false>{});
  } else {
    constexpr int kLeastLines = 4;  // so that a row's first and last lines differ
    if (rows == 0 || n * sizeof(T) < kLeastLines * kLineBytes) nontemporal = false;
    nontemporal ? run(Flag<true>{}) : run(Flag<false>{});
  }
}

}  // namespace
}  // namespace pyreg
