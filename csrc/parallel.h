// Threads. Work is divided into blocks whose size does not depend on the number of threads; a thread only takes
// blocks. OpenMP's number of threads and its limits apply here too. Only parallel.cpp knows about OpenMP.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cache.h"
#include "workers.h"

namespace pyreg {

// How many threads a call from this thread may use now: the number from set_scoped_num_threads or set_num_threads,
// but no more than a limit that others have put on OpenMP (threadpoolctl). A limit that equals OpenMP's default looks
// like no limit.
int num_threads();

// Sets the number for the whole process.
void set_num_threads(int threads);

// Sets the number for the calling thread, in place of the process's; 0 removes it. Returns the previous one.
int set_scoped_num_threads(int threads);

// The file from which the OpenMP runtime was loaded.
const char* openmp_runtime();

// A call may use one thread per this many bytes that it moves, if the thread is awake. Waking a thread takes more
// work than this (workers.cpp).
constexpr int64_t kBytesPerThread = 128 * 1024;

inline int threads_for(int64_t blocks, int64_t bytes) {
  const int64_t useful = std::min({blocks, bytes / kBytesPerThread, int64_t{kMostThreads}});
  return useful <= 1 ? 1 : static_cast<int>(std::min<int64_t>(num_threads(), useful));
}

constexpr int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Calls body(begin, end, thread) for each block of `size` of the items 0, ..., n - 1. bytes: moved by all blocks.
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

// Calls body(begin, end) on as many threads as are useful.
template <typename Body>
void parallel_blocks(int64_t n, int64_t size, int64_t bytes, Body body) {
  parallel_blocks(threads_for(blocks_of(n, size), bytes), n, size, bytes,
                  [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

}  // namespace pyreg
