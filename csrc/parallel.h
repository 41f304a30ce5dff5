// Threads. Work is cut into blocks whose size does not depend on how many threads there are; threads
// only take blocks. parallel.cpp is the only file that knows OpenMP.
#pragma once

#include <algorithm>
#include <cstdint>

#include "streaming.h"

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

// A pool of threads does not survive fork(): has it put down before each one.
void prepare_for_fork();

// in_cache: each thread takes the same blocks in every call, and may find them in its own cache. Otherwise a thread
// takes the next one whenever it is free.
void run_blocks(int64_t blocks, int threads, bool in_cache, void (*run)(void* context, int64_t block), void* context);

// A thread is worth waking for this many bytes: a parallel region costs some microseconds.
constexpr int64_t kBytesPerThread = 128 * 1024;

// body(begin, end) for each block of `size` of the items 0, ..., n - 1. bytes: what all of it moves.
template <typename Body>
void parallel_blocks(int64_t n, int64_t size, int64_t bytes, Body body) {
  const int64_t blocks = (n + size - 1) / size;
  struct Context {
    Body& body;
    int64_t n, size;
  } context{body, n, size};
  const auto run = [](void* opaque, int64_t block) {
    auto& [body, n, size] = *static_cast<Context*>(opaque);
    body(block * size, std::min(n, (block + 1) * size));
  };
  const int64_t useful = std::min(blocks, bytes / kBytesPerThread);
  const int threads = useful <= 1 ? 1 : static_cast<int>(std::min<int64_t>(num_threads(), useful));
  run_blocks(blocks, threads, !outgrows_cache(bytes), run, &context);
}

}  // namespace pyreg
