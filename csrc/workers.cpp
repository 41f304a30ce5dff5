#include "workers.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <new>

#include "float_environment.h"
#include "open_call.h"
#include "os_threads.h"

namespace pyreg {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// A sleeping worker begins 20 to 50 us after it is woken, which takes the waker 5 to 10: two threads are faster than
// one where this much is left.
constexpr auto kWorthWaking = 60us;
// That much is left of a call that moves so many bytes, at 50 GB/s: few kernels are faster, in cache.
constexpr int64_t kBytesWorthWaking = 3 * 1024 * 1024;
// How long a worker that has worked looks for the next call, before it sleeps: as long as it takes to wake it.
constexpr auto kSpin = 50us;
// A worker that is inside of a block for so long, and twice as long as the caller's longest, has lost its CPU.
constexpr auto kPatience = 20us;
// Where a thread cannot be had, the next attempt is made after this time.
constexpr auto kRetry = 1s;
// That have workers at the same time; more run on their callers' threads alone.
constexpr int kMostCalls = 8;
// Where more threads are asked for than there are CPUs.
constexpr int kWorkersPerCpu = 4;

class alignas(64) Worker {
 public:
  std::atomic<uint32_t> asleep = 0;
  std::atomic<OpenCall*> inside = nullptr;
  std::atomic<bool> hurried = false;

  // false where a thread cannot be had.
  bool start(void* (*run)(void*)) {
    const std::lock_guard lock(mutex_);
    asleep = 0, hurried = false, cpus_ = CpuSet();
    return runs_ = pthread_create(&thread_, nullptr, run, this) == 0;
  }
  void join() {
    {
      const std::lock_guard lock(mutex_);
      runs_ = false;
    }
    pthread_join(thread_, nullptr);
  }
  void move(const CpuSet& target) {
    const std::lock_guard lock(mutex_);
    if (!runs_ || cpus_ == target) return;
    cpus_ = target;
    cpus_.take(thread_);
  }
  void wake(const CpuSet& target) {
    if (asleep.load() == 0 || asleep.exchange(0) == 0) return;
    move(target);
    wake_sleeper(asleep);
  }

 private:
  std::mutex mutex_;  // for all below
  bool runs_ = false;
  pthread_t thread_ = {};
  CpuSet cpus_;  // where it may run, if it has been moved
};

// Signals are for the program's own threads, but for those that a fault raises in the thread that it happens in.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

class Pool {
 public:
  OpenCall* claim() {
    for (OpenCall& call : calls_)
      if (call.claim()) return &call;
    return nullptr;
  }

  // Starts workers until there are so many, or no more can be had.
  void grow(int workers) {
    if (size_.load(std::memory_order_relaxed) >= workers) return;
    const std::unique_lock lock(growing_, std::try_to_lock);
    if (!lock || Clock::now() < retry_at_) return;
    const BlockedSignals blocked;
    while (size_ < workers) {
      if (!workers_[size_].start(look_for_work)) {
        retry_at_ = Clock::now() + kRetry;
        return;
      }
      most_ = std::max<int>(most_, ++size_);
    }
  }

  void wake_next(OpenCall& call) {
    const int i = call.next_to_wake();
    if (i >= 0 && i < size_.load(std::memory_order_acquire)) workers_[i].wake(call.cpus());
  }

  // The scheduler lets a thread that has lost its CPU to another one wait for some milliseconds. The caller, which
  // has nothing left to do, gives its own.
  void hurry_those_inside(const OpenCall& call) {
    for (int i = 0, n = size_.load(std::memory_order_acquire); i < n; ++i) {
      if (workers_[i].inside.load() != &call) continue;
      workers_[i].hurried = true;
      workers_[i].move(CpuSet::here());
    }
  }

  // Around a fork: until the second or the third there are no workers.
  void stop_all() {
    growing_.lock();
    stopping_ = true;
    for (; size_ > 0; --size_) {
      Worker& worker = workers_[size_ - 1];
      if (worker.asleep.exchange(0) != 0) wake_sleeper(worker.asleep);
      worker.join();
    }
    stopping_ = false;
  }
  void resume() { growing_.unlock(); }
  void resume_in_child() {
    for (OpenCall& call : calls_) call.abandon();
    // Mutexes may be held by threads that are not here.
    for (int i = 0; i < most_; ++i) new (&workers_[i]) Worker;
    new (&growing_) std::mutex;
  }

 private:
  static void* look_for_work(void* worker);

  bool work(Worker& me, int thread) {
    for (OpenCall& call : calls_) {
      if (!call.join(thread)) continue;
      me.inside = &call;
      do {
        wake_next(call);
      } while (!stopping_ && call.run_a_block(thread));
      me.inside = nullptr;
      call.leave();
      return true;
    }
    return false;
  }

  OpenCall calls_[kMostCalls];
  Worker workers_[kMostThreads - 1];
  std::atomic<int> size_ = 0;
  int most_ = 0;  // that there have been
  std::atomic<bool> stopping_ = false;
  std::mutex growing_;
  Clock::time_point retry_at_ = {};
};

constinit Pool pool;

void* Pool::look_for_work(void* worker) {
  Worker& me = *static_cast<Worker*>(worker);
  const int thread = static_cast<int>(&me - pool.workers_) + 1;
  const DefaultFloatEnvironment environment;
  while (!pool.stopping_) {
    for (auto worked = Clock::now(); Clock::now() - worked < kSpin && !pool.stopping_;) {
      if (pool.work(me, thread)) worked = Clock::now();
      if (me.hurried) break;  // it is on the CPU of a caller that sleeps
      relax_cpu();
    }
    me.hurried = false;
    me.asleep = 1;
    while (me.asleep == 1 && !pool.stopping_) sleep_while(me.asleep, 1);
  }
  return nullptr;
}

// The workers that the caller of a call wants, and wakes or makes.
class Helpers {
 public:
  Helpers(OpenCall& call, int most) : call_(call), most_(most) {}

  void want(int64_t workers) {
    if (std::min(workers, most_) <= wanted_) return;
    if (wanted_ == 0) {
      const CpuSet others = CpuSet::of_this_thread().without(CpuSet::here());
      call_.let_workers_run_on(others);
      most_ = std::min<int64_t>(most_, kWorkersPerCpu * others.count());
    }
    wanted_ = static_cast<int>(std::min(workers, most_));
    pool.grow(wanted_);
    call_.want(wanted_);
  }

 private:
  OpenCall& call_;
  int64_t most_;
  int wanted_ = 0;
};

}  // namespace

void run_on_workers(const Work& work) noexcept {
  OpenCall* call = work.threads > 1 && work.blocks <= UINT32_MAX ? pool.claim() : nullptr;
  if (!call) {
    for (int64_t block = 0; block < work.blocks; ++block) work.run(work.context, block, 0);
    return;
  }
  call->open(work);
  Helpers helpers(*call, work.threads - 1);
  helpers.want(work.bytes / kBytesWorthWaking);
  const auto start = Clock::now();
  auto now = start;
  auto longest = Clock::duration(0);
  for (int64_t done = 1;; ++done) {
    pool.wake_next(*call);
    if (!call->run_a_block(0)) break;
    const auto before = now;
    now = Clock::now();
    longest = std::max(longest, now - before);
    helpers.want((now - start) / done * call->blocks_left() / kWorthWaking);
  }

  call->close();
  for (const auto since = Clock::now(); call->anybody_inside();) {
    relax_cpu();
    if (Clock::now() - since < kPatience + 2 * longest) continue;
    pool.hurry_those_inside(*call);
    call->sleep_until_all_have_left();
  }
  call->release();
}

void prepare_for_fork() {
  pthread_atfork([] { pool.stop_all(); }, [] { pool.resume(); }, [] { pool.resume_in_child(); });
}

}  // namespace pyreg
