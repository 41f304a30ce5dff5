#include "workers.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "open_call.h"
#include "os_threads.h"
#include "worker_pool.h"

namespace pyreg {
namespace {

using namespace std::chrono_literals;

// One worker is woken per this much remaining work, as time on one thread. Waking takes 5 to 10 us. The worker starts
// 20 to 50 us later, and its caches are cold.
constexpr auto kWorthWaking = 100us;
// One worker is woken at once per this many bytes that a call moves: they take as long, unless they are in the
// caller's cache.
constexpr int64_t kBytesWorthWaking = 3 * 1024 * 1024;
// The caller waits this long, plus twice its longest block, before it assumes that a worker has lost its CPU.
constexpr auto kPatience = 20us;
// The most workers per CPU, if more threads are asked for than there are CPUs.
constexpr int kWorkersPerCpu = 4;

// The workers that a caller wants for its call. They are started if they do not exist.
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

// What the calling thread has done of a call, and estimates for the whole call.
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
  // How long one thread would take, judging by the blocks done.
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

// Runs blocks until a worker would be worth waking; returns how many it ran. Until then a small call does not look
// for help: between other work, what the workers share is in no cache.
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
