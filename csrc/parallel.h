// Threads. Work is cut into blocks whose size does not depend on how many threads there are; threads only take
// blocks. parallel.cpp is the only file that knows OpenMP, whose number of threads and limits hold here too.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cache.h"
#include "workers.h"

namespace pyreg {

// How many threads a call from this thread may use now: what num_threads or set_num_threads said, and
// no more than a limit put on OpenMP by others (threadpoolctl). A limit that is OpenMP's default cannot be told from
// none.
int num_threads();

// For the whole process.
void set_num_threads(int threads);

// For the calling thread alone, in place of the process's number; 0 takes it back. Returns the former.
int set_scoped_num_threads(int threads);

// Where the OpenMP runtime that is loaded comes from.
const char* openmp_runtime();

// How many threads may take part in a call that moves so many bytes: one for each of these, if it is awake. To be
// woken it takes more (workers.cpp).
constexpr int64_t kBytesPerThread = 128 * 1024;

inline int threads_for(int64_t blocks, int64_t bytes) {
  const int64_t useful = std::min({blocks, bytes / kBytesPerThread, int64_t{kMostThreads}});
  return useful <= 1 ? 1 : static_cast<int>(std::min<int64_t>(num_threads(), useful));
}

constexpr int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// body(begin, end, thread) for each block of `size` of the items 0, ..., n - 1. bytes: what all of it moves.
template <typename Body>
void parallel_blocks(int threads, int64_t n, int64_t size, int64_t bytes, Body body) {
  struct Context {
    Body& body;
    int64_t n, size;
  } context{body, n, size};
  const auto run = [](void* opaque, int64_t block, int thread) {
    auto& [body, n, size] = *static_cast<Context*>(opaque);
    body(block * size, std::min(n, (block + 1) * size), thread);
  };
  run_on_workers({.blocks = blocks_of(n, size), .bytes = bytes, .threads = threads, .run = run, .context = &context});
}

// body(begin, end), on as many threads as are useful.
template <typename Body>
void parallel_blocks(int64_t n, int64_t size, int64_t bytes, Body body) {
  parallel_blocks(threads_for(blocks_of(n, size), bytes), n, size, bytes,
                  [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

}  // namespace pyreg
