#include "workers.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <mutex>
#include <new>

#include "float_environment.h"
#include "open_call.h"
#include "os_threads.h"

namespace pyreg {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// A worker is woken where this much is left for one thread to do. Waking one takes 5 to 10 us; it begins 20 to 50 us
// later, and its caches are cold.
constexpr auto kWorthWaking = 100us;
// One is woken at once where a call moves so many bytes: they take as long unless they are in the caller's cache.
constexpr int64_t kBytesWorthWaking = 3 * 1024 * 1024;
// How long a worker that has worked looks for the next call, before it sleeps: as long as it takes to wake it.
constexpr auto kSpin = 50us;
// The caller waits this long, and twice its longest block, before it takes a worker to have lost its CPU.
constexpr auto kPatience = 20us;
// Where a thread cannot be had, the next attempt is made after this time.
constexpr auto kRetry = 1s;
// Calls that can have workers at the same time; others run on their callers' threads alone.
constexpr int kMostCalls = 8;
// The most workers for each CPU, where more threads are asked for than there are CPUs.
constexpr int kWorkersPerCpu = 4;

class alignas(64) Worker {
 public:
  std::atomic<uint32_t> asleep = 0;
  std::atomic<const OpenCall*> inside = nullptr;  // or about to be, or just out
  std::atomic<bool> hurried = false;              // from then until it is woken, it is on the CPU of a waiting caller

  // false where a thread cannot be had.
  bool start(void* (*run)(void*), const CpuSet& cpus) {
    const std::lock_guard lock(mutex_);
    asleep = 0, hurried = false, cpus_ = CpuSet();
    runs_ = pthread_create(&thread_, nullptr, run, this) == 0;
    move(cpus);
    return runs_;
  }
  // The thread's last act: after it, thread_ may stand for another one.
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

  // One thread's time for the calls that have followed each other until now. They are as one long call to what it is
  // worth to wake a worker for: it stays awake from one to the next.
  Clock::duration worked_until(Clock::time_point now) const {
    return now - last_call_.load(std::memory_order_relaxed) < kSpin ? worked_.load(std::memory_order_relaxed)
                                                                    : Clock::duration(0);
  }
  void add_call(Clock::duration worked, Clock::time_point end) {
    worked_.store(worked, std::memory_order_relaxed);
    last_call_.store(end, std::memory_order_relaxed);
  }

  bool anybody_awake() const { return awake_.load(std::memory_order_relaxed) > 0; }

  // Starts workers until there are so many, or no more can be had. They serve the calls of other threads too, so that
  // a thread of low priority starts none.
  void grow(int workers, const CpuSet& cpus) {
    if (size_.load(std::memory_order_relaxed) >= workers) return;
    const std::unique_lock lock(growing_, std::try_to_lock);
    if (!lock || Clock::now() < retry_at_ || has_lower_priority_than_its_process()) return;
    const BlockedSignals blocked;
    while (size_ < workers) {
      if (!workers_[size_].start(look_for_work, cpus)) {
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
  // has nothing left to do, gives its own, where threads can be moved.
  void hurry_those_inside(const OpenCall& call) {
    const CpuSet here = CpuSet::here();
    for (int i = 0, n = size_.load(std::memory_order_acquire); i < n; ++i) workers_[i].hurry(call, here);
  }

  // Before a fork; workers can be had again after resume() or resume_in_child().
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
      if (!call.wants(thread)) continue;
      me.inside = &call;
      const bool joined = call.join(thread);
      if (joined) {
        do {
          wake_next(call);
        } while (!stopping_ && call.run_a_block(thread));
        call.leave();
      }
      me.inside = nullptr;
      if (joined) return true;
    }
    return false;
  }
  bool is_wanted(int thread) const {
    return std::any_of(std::begin(calls_), std::end(calls_),
                       [=](const OpenCall& call) { return call.wants(thread); });
  }

  OpenCall calls_[kMostCalls];
  Worker workers_[kMostThreads - 1];
  std::atomic<int> size_ = 0, awake_ = 0;
  std::atomic<Clock::duration> worked_ = Clock::duration(0);
  std::atomic<Clock::time_point> last_call_ = Clock::time_point();
  int most_ = 0;  // workers that there have been
  std::atomic<bool> stopping_ = false;
  std::mutex growing_;
  Clock::time_point retry_at_ = {};
};

// Never destroyed: its workers run until the process ends.
union Forever {
  Pool pool;
  constexpr Forever() : pool() {}
  ~Forever() {}
};
constinit Forever forever;
Pool& pool = forever.pool;

void* Pool::look_for_work(void* worker) {
  Worker& me = *static_cast<Worker*>(worker);
  const int thread = static_cast<int>(&me - pool.workers_) + 1;
  const DefaultFloatEnvironment environment;
  while (!pool.stopping_) {
    ++pool.awake_;
    for (auto worked = Clock::now(); Clock::now() - worked < kSpin && !pool.stopping_;) {
      if (pool.work(me, thread)) worked = Clock::now();
      if (me.hurried) break;
      relax_cpu();
    }
    --pool.awake_;
    me.asleep = 1;
    if (pool.is_wanted(thread) && !me.hurried) me.asleep = 0;  // by a caller that did not see it asleep
    while (me.asleep == 1 && !pool.stopping_) sleep_while(me.asleep, 1);
  }
  me.end();
  return nullptr;
}

// The workers that the caller of a call wants, and wakes or makes.
class Helpers {
 public:
  Helpers(OpenCall& call, int most) : call_(call), most_(most) {}

  bool all_wanted() const { return wanted_ >= most_; }
  void want(int64_t workers) {
    if (std::min(workers, most_) <= wanted_) return;
    if (wanted_ == 0) {
      call_.let_workers_run_on(CpuSet::of_this_thread().without(CpuSet::here()));
      most_ = std::min<int64_t>(most_, kWorkersPerCpu * call_.cpus().count());
    }
    wanted_ = static_cast<int>(std::min(workers, most_));
    pool.grow(wanted_, call_.cpus());
    call_.want(wanted_);
  }

 private:
  OpenCall& call_;
  int64_t most_;
  int wanted_ = 0;
};

// What the calling thread has done of a call, and what that tells of all of it.
class Progress {
 public:
  explicit Progress(int64_t blocks) : blocks_(blocks) {}

  void block_done() {
    const auto before = now_;
    now_ = Clock::now();
    longest_ = std::max(longest_, now_ - before);
    ++done_;
  }
  int64_t workers_worth_waking(int64_t blocks_left) const {
    return (worked_before_ + time_for(blocks_left)) / kWorthWaking;
  }
  Clock::duration longest_block() const { return longest_; }
  void call_done() const {
    const auto end = Clock::now();
    pool.add_call(worked_before_ + std::max(time_for(blocks_), end - start_), end);
  }

 private:
  // That one thread would take, by what it has done.
  Clock::duration time_for(int64_t blocks) const {
    return done_ > 0 ? (now_ - start_) / done_ * blocks : Clock::duration(0);
  }

  const int64_t blocks_;
  const Clock::time_point start_ = Clock::now();
  const Clock::duration worked_before_ = pool.worked_until(start_);
  Clock::time_point now_ = start_;
  Clock::duration longest_ = {};
  int64_t done_ = 0;
};

void run_alone(const Work& work, int64_t first) {
  for (int64_t block = first; block < work.blocks; ++block) work.run(work.context, block, 0);
}

// Runs blocks until a worker would pay; the number of those done. A small call does not even look for help before:
// between other work, what the workers share is in no cache.
int64_t run_while_small(const Work& work, Progress& progress) {
  int64_t next = 0;
  if (work.bytes >= kBytesWorthWaking || pool.anybody_awake()) return next;
  for (; next < work.blocks && progress.workers_worth_waking(work.blocks - next) < 1; ++next) {
    work.run(work.context, next, 0);
    progress.block_done();
  }
  return next;
}

void run_with_workers(const Work& work, int64_t first, OpenCall& call, Progress& progress) {
  call.open(work, first);
  Helpers helpers(call, work.threads - 1);
  helpers.want(work.bytes / kBytesWorthWaking);
  for (;; progress.block_done()) {
    if (!helpers.all_wanted()) helpers.want(progress.workers_worth_waking(call.blocks_left()));
    pool.wake_next(call);
    if (!call.run_a_block(0)) break;
  }
  call.close();

  const auto patience = kPatience + 2 * progress.longest_block();
  for (const auto since = Clock::now(); call.anybody_inside(); relax_cpu()) {
    if (Clock::now() - since < patience) continue;
    pool.hurry_those_inside(call);
    call.sleep_until_all_have_left();
  }
  call.release();
}

}  // namespace

void run_on_workers(const Work& work) noexcept {
  if (work.threads == 1) return run_alone(work, 0);
  Progress progress(work.blocks);
  const int64_t next = run_while_small(work, progress);
  OpenCall* const call = next < work.blocks && work.blocks <= UINT32_MAX ? pool.claim() : nullptr;
  if (call)
    run_with_workers(work, next, *call, progress);
  else
    run_alone(work, next);
  progress.call_done();
}

void prepare_for_fork() {
  static const int registered =
      pthread_atfork([] { pool.stop_all(); }, [] { pool.resume(); }, [] { pool.resume_in_child(); });
  static_cast<void>(registered);
}

}  // namespace pyreg
