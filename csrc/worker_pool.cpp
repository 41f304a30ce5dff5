#include "worker_pool.h"

#include <signal.h>

#include <algorithm>
#include <iterator>
#include <new>

#include "float_environment.h"

namespace pyreg {
namespace {

// If a thread could not be created, the next attempt is made after this time.
constexpr auto kRetry = std::chrono::seconds(1);

// The mask that workers inherit. Signals are for the program's own threads, except those of a fault: these are raised
// in the thread that caused it.
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

}  // namespace

OpenCall* Pool::claim() {
  for (OpenCall& call : calls_)
    if (call.claim()) return &call;
  return nullptr;
}

void Pool::grow(int workers, const CpuSet& cpus) {
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

void Pool::wake_next(OpenCall& call) {
  const int i = call.next_to_wake();
  if (i >= 0 && i < size_.load(std::memory_order_acquire)) workers_[i].wake(call.cpus());
}

void Pool::hurry_those_inside(const OpenCall& call) {
  const CpuSet here = CpuSet::here();
  for (int i = 0, n = size_.load(std::memory_order_acquire); i < n; ++i) workers_[i].hurry(call, here);
}

Clock::duration Pool::worked_until(Clock::time_point now) const {
  return now - last_call_.load(std::memory_order_relaxed) < kSpin ? worked_.load(std::memory_order_relaxed)
                                                                  : Clock::duration(0);
}

void Pool::add_call(Clock::duration worked, Clock::time_point end) {
  worked_.store(worked, std::memory_order_relaxed);
  last_call_.store(end, std::memory_order_relaxed);
}

void Pool::stop_all() {
  growing_.lock();
  stopping_ = true;
  for (; size_ > 0; --size_) {
    Worker& worker = workers_[size_ - 1];
    if (worker.asleep.exchange(0) != 0) wake_sleeper(worker.asleep);
    worker.join();
  }
  stopping_ = false;
}

void Pool::resume() { growing_.unlock(); }

void Pool::resume_in_child() {
  for (OpenCall& call : calls_) call.abandon();
  // Mutexes may be held by threads that do not exist in the child.
  for (int i = 0; i < most_; ++i) new (&workers_[i]) Worker;
  growing_.unlock();
}

bool Pool::work(Worker& me, int thread) {
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

bool Pool::is_wanted(int thread) const {
  return std::any_of(std::begin(calls_), std::end(calls_), [=](const OpenCall& call) { return call.wants(thread); });
}

namespace {

union Forever {
  Pool pool;
  constexpr Forever() : pool() {}
  ~Forever() {}
};
constinit Forever forever;

}  // namespace

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

}  // namespace pyreg
