// What threads ask of the operating system: to sleep, and on which CPUs to run. Only Linux moves threads.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <sched.h>
#endif

namespace pyreg {

// Returns when the word has another value, or for no reason. Unlike std::atomic's wait it does not spin first, nor
// give way to the threads that spin: who sleeps is preferred by the scheduler when woken.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value);
void wake_sleeper(std::atomic<uint32_t>& word);

// Between two looks at what another thread may change.
void relax_cpu();

// Whether the calling thread has been given a lower priority than the process's first one. A thread that it starts
// would have it too.
bool has_lower_priority_than_its_process();

class CpuSet {
 public:
  static CpuSet of_this_thread();  // where it may run
  static CpuSet here();            // the CPU that it runs on
  CpuSet without(const CpuSet& other) const;
  int count() const;
  bool operator==(const CpuSet& other) const;

  // Lets a thread run on these CPUs alone.
  void take(pthread_t thread) const;

 private:
#if defined(__linux__)
  cpu_set_t set_ = {};
  bool unknown_ = false;
#endif
};

}  // namespace pyreg
