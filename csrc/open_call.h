// A call that workers can join, and its blocks.
#pragma once

#include <atomic>
#include <cstdint>

#include "os_threads.h"
#include "workers.h"

namespace pyreg {

// One thread's share of the blocks: begin, ..., end - 1 have not been taken yet. It has a cache line of its own.
class alignas(64) Share {
 public:
  void set(uint32_t begin, uint32_t end) { range_.store(pack(begin, end), std::memory_order_relaxed); }
  uint32_t left() const { return left(range_.load(std::memory_order_relaxed)); }
  // Returns false if no block is left.
  bool take_first(uint32_t& block) {
    return take([&](uint64_t range) {
      block = begin(range);
      return pack(block + 1, end(range));
    });
  }
  bool take_last(uint32_t& block) {
    return take([&](uint64_t range) {
      block = end(range) - 1;
      return pack(begin(range), block);
    });
  }

 private:
  template <typename Rest>
  bool take(Rest rest) {
    uint64_t range = range_.load(std::memory_order_relaxed);
    while (left(range) > 0)
      if (range_.compare_exchange_weak(range, rest(range), std::memory_order_relaxed)) return true;
    return false;
  }
  static uint64_t pack(uint32_t begin, uint32_t end) { return uint64_t{begin} << 32 | end; }
  static uint32_t begin(uint64_t range) { return static_cast<uint32_t>(range >> 32); }
  static uint32_t end(uint64_t range) { return static_cast<uint32_t>(range); }
  static uint32_t left(uint64_t range) { return end(range) - begin(range); }

  std::atomic<uint64_t> range_ = 0;
};

// A slot for one call at a time. It outlives the calls, so a worker may look at it at any time.
class alignas(64) OpenCall {
 public:
  // For the caller.
  bool claim() {
    return !claimed_.load(std::memory_order_relaxed) && !claimed_.exchange(true, std::memory_order_acquire);
  }
  // Opens the call for the blocks from `first` on.
  void open(const Work& work, int64_t first) {
    run_ = work.run, context_ = work.context;
    const auto border = [&](int share) {
      return static_cast<uint32_t>(first + (work.blocks - first) * share / work.threads);
    };
    for (int i = 0; i < work.threads; ++i) shares_[i].set(border(i), border(i + 1));
    num_shares_.store(work.threads, std::memory_order_relaxed);
    wanted_.store(0, std::memory_order_relaxed);
    woken_.store(0, std::memory_order_relaxed);
    // Sequentially consistent, like the store with which a worker falls asleep: either the worker sees the call, or
    // the caller sees it asleep.
    state_.store(kOpen | static_cast<uint32_t>(work.threads) << kThreadsAt);
  }
  void close() { state_.fetch_and(kInside, std::memory_order_acquire); }
  bool anybody_inside() const { return state_.load(std::memory_order_acquire) & kInside; }
  void sleep_until_all_have_left() {
    for (uint32_t state = state_.fetch_or(kAwaited); state & kInside; state = state_.load(std::memory_order_acquire))
      sleep_while(state_, state | kAwaited);
  }
  void release() { claimed_.store(false, std::memory_order_release); }
  void abandon() { state_ = 0, claimed_ = false; }

  // For workers: whether `thread` may take part and blocks are left.
  bool wants(int thread) const { return is_for(thread, state_.load()) && blocks_left() > 0; }
  // Enters the call; false if `thread` may not take part or the call is closed.
  bool join(int thread) {
    uint32_t state = state_.load(std::memory_order_relaxed);
    while (is_for(thread, state))
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) return true;
    return false;
  }
  void leave() {
    const uint32_t state = state_.fetch_sub(1, std::memory_order_acq_rel);
    if (state & kAwaited && (state & kInside) == 1) wake_sleeper(state_);
  }

  // For the caller and the workers.
  bool run_a_block(int thread) {
    uint32_t block;
    if (!take(thread, block)) return false;
    run_(context_, block, thread);
    return true;
  }
  int64_t blocks_left() const {
    int64_t left = 0;
    for (int i = 0, n = num_shares_.load(std::memory_order_relaxed); i < n; ++i) left += shares_[i].left();
    return left;
  }

  // Called once, before any worker is wanted.
  void let_workers_run_on(const CpuSet& cpus) { cpus_ = cpus; }
  // The first `workers` workers of the pool should be awake.
  void want(int workers) { wanted_.store(workers, std::memory_order_release); }
  // The next worker to wake, or -1 if there is none. Each worker is returned only once.
  int next_to_wake() {
    int worker = woken_.load(std::memory_order_relaxed);
    if (worker >= wanted_.load(std::memory_order_acquire)) return -1;
    return woken_.compare_exchange_strong(worker, worker + 1) ? worker : -1;
  }
  const CpuSet& cpus() const { return cpus_; }

 private:
  // A thread first takes the blocks of its own share. In a repeated call these are the blocks that it had before,
  // which may still be in its cache. Then it helps the others, from the end of their shares.
  bool take(int thread, uint32_t& block) {
    const int shares = num_shares_.load(std::memory_order_relaxed);
    if (shares_[thread].take_first(block)) return true;
    for (int i = 1; i < shares; ++i)
      if (shares_[(thread + i) % shares].take_last(block)) return true;
    return false;
  }

  static bool is_for(int thread, uint32_t state) {
    return state & kOpen && thread < static_cast<int>(state >> kThreadsAt & kThreads);
  }

  // state_ holds whether the call is open, whether its caller is asleep, how many threads may take part and how many
  // workers are inside.
  static constexpr uint32_t kOpen = 1u << 31, kAwaited = 1u << 30, kThreads = 0x7ff, kInside = 0x7ff;
  static constexpr int kThreadsAt = 11;
  static_assert(kMostThreads <= kInside);

  std::atomic<uint32_t> state_ = 0;
  std::atomic<bool> claimed_ = false;
  RunBlock run_ = nullptr;
  void* context_ = nullptr;
  CpuSet cpus_;
  std::atomic<int> wanted_ = 0, woken_ = 0, num_shares_ = 0;
  Share shares_[kMostThreads];
};

}  // namespace pyreg
