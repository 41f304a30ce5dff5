#include "parallel.h"

#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>

#include <atomic>
#include <climits>
#include <cstdlib>
#include <utility>

namespace pyreg {
namespace {

// What omp_get_max_threads() says where nobody has put a limit on it. It is not asked: a limit may be in
// force while this is loaded.
int unlimited_threads() {
  const char* environment = std::getenv("OMP_NUM_THREADS");
  const int threads = environment ? std::atoi(environment) : 0;
  return threads > 0 ? threads : omp_get_num_procs();
}

const int unlimited = unlimited_threads();

std::atomic<int> process_threads{unlimited};
thread_local int scoped_threads = 0;

}  // namespace

int num_threads() {
  const int openmp = omp_get_max_threads();
  const int limit = openmp < unlimited ? openmp : INT_MAX;
  const int wanted = scoped_threads > 0 ? scoped_threads : process_threads.load();
  return std::min(wanted, limit);
}

void set_num_threads(int threads) { process_threads = threads; }

int set_scoped_num_threads(int threads) { return std::exchange(scoped_threads, threads); }

const char* openmp_runtime() {
  Dl_info info;
  const bool found = dladdr(reinterpret_cast<void*>(&omp_get_max_threads), &info) != 0;
  return found && info.dli_fname ? info.dli_fname : "unknown";
}

void prepare_for_fork() {
  pthread_atfork([] { omp_pause_resource_all(omp_pause_soft); }, nullptr, nullptr);
}

void run_blocks(int64_t blocks, int threads, void (*run)(void*, int64_t), void* context) {
  if (threads <= 1) {
    for (int64_t block = 0; block < blocks; ++block) run(context, block);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t block = 0; block < blocks; ++block) run(context, block);
}

}  // namespace pyreg
