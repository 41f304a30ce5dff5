#include "parallel.h"

#include <dlfcn.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <utility>

namespace pyreg {
namespace {

// What omp_get_max_threads() returns if nobody has set a limit. It is not called here, because a limit may be in
// force while this library is loaded. OMP_NUM_THREADS is a number, or a list of numbers for nested regions; the
// runtime ignores any other value.
int unlimited_threads() {
  const char* rest = std::getenv("OMP_NUM_THREADS");
  long first = 0;
  while (rest) {
    char* end;
    errno = 0;
    const long threads = std::strtol(rest, &end, 10);
    while (std::isspace(static_cast<unsigned char>(*end))) ++end;
    if (threads < 1 || errno == ERANGE || (*end != ',' && *end != '\0')) return omp_get_num_procs();
    if (first == 0) first = threads;
    rest = *end == ',' ? end + 1 : nullptr;
  }
  return first > 0 ? static_cast<int>(std::min<long>(first, INT_MAX)) : omp_get_num_procs();
}

const int unlimited = unlimited_threads();

std::atomic<int> process_threads{unlimited};
thread_local int scoped_threads = 0;

}  // namespace

int num_threads() {
  const int openmp = omp_get_max_threads();  // below 1 if a number too large for an int was set
  const int limit = openmp != unlimited && openmp > 0 ? openmp : INT_MAX;
  const int wanted = scoped_threads > 0 ? scoped_threads : process_threads.load();
  return std::max(1, std::min({wanted, limit, omp_get_thread_limit()}));
}

void set_num_threads(int threads) { process_threads = threads; }

int set_scoped_num_threads(int threads) { return std::exchange(scoped_threads, threads); }

const char* openmp_runtime() {
  Dl_info info;
  const bool found = dladdr(reinterpret_cast<void*>(&omp_get_max_threads), &info) != 0;
  return found && info.dli_fname ? info.dli_fname : "unknown";
}

}  // namespace pyreg
