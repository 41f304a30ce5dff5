// The pool of workers: threads that join open calls, and sleep when there are none.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "open_call.h"
#include "os_threads.h"
#include "workers.h"

namespace pyreg {

using Clock = std::chrono::steady_clock;

// How long a worker that has worked looks for the next call before it sleeps: as long as it takes to wake it.
constexpr auto kSpin = std::chrono::microseconds(50);
// How many calls can have workers at the same time. Others run on their callers' threads alone.
constexpr int kMostCalls = 8;

class alignas(64) Worker {
 public:
  std::atomic<uint32_t> asleep = 0;
  std::atomic<const OpenCall*> inside = nullptr;  // or about to join, or just out of it
  std::atomic<bool> hurried = false;              // on the CPU of a waiting caller, until it is woken again

  // Returns false if no thread can be created.
  bool start(void* (*run)(void*), const CpuSet& cpus) {
    const std::lock_guard lock(mutex_);
    asleep = 0, hurried = false, cpus_ = CpuSet();
    runs_ = pthread_create(&thread_, nullptr, run, this) == 0;
    move(cpus);
    return runs_;
  }
  // The thread calls this last. After that, thread_ may refer to another thread.
  void end() {
    const std::lock_guard lock(mutex_);
    runs_ = false;
  }
  void join() { pthread_join(thread_, nullptr); }

  void wake(const CpuSet& cpus) {
    if (asleep.load() == 0 || asleep.exchange(0) == 0) return;
    {
      const std::lock_guard lock(mutex_);
      hurried = false;
      move(cpus);
    }
    wake_sleeper(asleep);
  }
  void hurry(const OpenCall& call, const CpuSet& cpus) {
    const std::lock_guard lock(mutex_);
    if (inside != &call) return;
    hurried = true;
    move(cpus);
  }

 private:
  void move(const CpuSet& cpus) {
    if (!runs_ || cpus_ == cpus) return;
    cpus_ = cpus;
    cpus_.take(thread_);
  }

  std::mutex mutex_;  // guards the members below
  bool runs_ = false;
  pthread_t thread_ = {};
  CpuSet cpus_;  // where it may run, if it was moved
};

class Pool {
 public:
  // A slot for a call, or null if all are taken.
  OpenCall* claim();

  // Starts workers until there are `workers` of them, or no more can be created. They serve the calls of other
  // threads too, so a thread of low priority starts none.
  void grow(int workers, const CpuSet& cpus);
  void wake_next(OpenCall& call);
  bool anybody_awake() const { return awake_.load(std::memory_order_relaxed) > 0; }

  // Moves the workers inside the call to the CPU of its caller, which has nothing left to do, if threads can be
  // moved. The scheduler may let a thread that has lost its CPU to another one wait for some milliseconds.
  void hurry_those_inside(const OpenCall& call);

  // How long one thread would take for the calls that have followed each other until now. When deciding whether to
  // wake a worker, they count as one long call, because a worker stays awake from one to the next.
  Clock::duration worked_until(Clock::time_point now) const;
  void add_call(Clock::duration worked, Clock::time_point end);

  // Called before a fork. Workers can start again after resume() or resume_in_child().
  void stop_all();
  void resume();
  void resume_in_child();

 private:
  static void* look_for_work(void* worker);
  bool work(Worker& me, int thread);
  bool is_wanted(int thread) const;

  OpenCall calls_[kMostCalls];
  Worker workers_[kMostThreads - 1];
  std::atomic<int> size_ = 0, awake_ = 0;
  std::atomic<Clock::duration> worked_ = Clock::duration(0);
  std::atomic<Clock::time_point> last_call_ = Clock::time_point();
  int most_ = 0;  // the most workers so far
  std::atomic<bool> stopping_ = false;
  std::mutex growing_;
  Clock::time_point retry_at_ = {};
};

// The pool of the process. It is never destroyed: its workers run until the process ends.
extern Pool& pool;

}  // namespace pyreg
