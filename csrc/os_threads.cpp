#include "os_threads.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <thread>
#endif

namespace pyreg {

void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_sleeper(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool has_lower_priority_than_its_process() {
  const auto is_idle = [](pid_t thread) {
    return sched_getscheduler(thread) == SCHED_IDLE;
  };
  return getpriority(PRIO_PROCESS, 0) > getpriority(PRIO_PROCESS, getpid()) || (is_idle(0) && !is_idle(getpid()));
}

CpuSet CpuSet::of_this_thread() {
  CpuSet cpus;
  // Fails on a machine with more CPUs than a cpu_set_t holds. No thread is moved there.
  if (sched_getaffinity(0, sizeof cpus.set_, &cpus.set_) != 0) {
    cpus.unknown_ = true;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &cpus.set_);
  }
  return cpus;
}

CpuSet CpuSet::here() {
  CpuSet cpus;
  const int cpu = sched_getcpu();
  if (cpu >= 0) CPU_SET(cpu, &cpus.set_);
  return cpus;
}

CpuSet CpuSet::without(const CpuSet& other) const {
  CpuSet both, rest;
  CPU_AND(&both.set_, &set_, &other.set_);
  CPU_XOR(&rest.set_, &set_, &both.set_);
  rest.unknown_ = unknown_;
  return rest;
}

int CpuSet::count() const { return CPU_COUNT(&set_); }

bool CpuSet::operator==(const CpuSet& other) const { return CPU_EQUAL(&set_, &other.set_); }

void CpuSet::take(pthread_t thread) const {
  if (!unknown_) pthread_setaffinity_np(thread, sizeof set_, &set_);
}

#else

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) { word.wait(value); }

void wake_sleeper(std::atomic<uint32_t>& word) { word.notify_one(); }

bool has_lower_priority_than_its_process() { return false; }

CpuSet CpuSet::of_this_thread() { return {}; }

CpuSet CpuSet::here() { return {}; }

CpuSet CpuSet::without(const CpuSet&) const { return {}; }

int CpuSet::count() const { return static_cast<int>(std::thread::hardware_concurrency()); }

bool CpuSet::operator==(const CpuSet&) const { return true; }

void CpuSet::take(pthread_t) const {}

#endif

}  // namespace pyreg
