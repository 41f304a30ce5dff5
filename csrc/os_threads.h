// What threads need from the operating system: to sleep, and to choose their CPUs. Threads are moved only on Linux.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <sched.h>
#endif

namespace pyreg {

// Returns when the word has another value, or spuriously. Unlike std::atomic's wait, it neither spins first nor
// yields to threads that spin: the scheduler prefers threads that wake from sleep.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value);
void wake_sleeper(std::atomic<uint32_t>& word);

// Called between two reads of a value that another thread may change.
void relax_cpu();

// Whether the calling thread has a lower priority than the process's first one. Threads that it starts inherit its
// priority.
bool has_lower_priority_than_its_process();

class CpuSet {
 public:
  static CpuSet of_this_thread();  // where it may run
  static CpuSet here();            // the CPU that it runs on
  CpuSet without(const CpuSet& other) const;
  int count() const;
  bool operator==(const CpuSet& other) const;

  // Restricts a thread to these CPUs.
  void take(pthread_t thread) const;

 private:
#if defined(__linux__)
  cpu_set_t set_ = {};
  bool unknown_ = false;
#endif
};

}  // namespace pyreg
