// The threads that help a call.
//
// The caller takes blocks itself, one after the other, and so does each worker that comes. Nobody waits for a thread
// that has not come: when no block is left, the caller waits only for workers that are inside of one. So a call is
// not slower than on one thread, however busy the machine is, but for what it costs to wake workers; and that is
// spent only where far more is left to do. (A parallel region of OpenMP ends when all of its threads have come.)
//
//   caller                                          worker
//     open the call                                   for ever:
//     while a block is left:                            if a call is open:
//       if more is left than waking costs: wake one       while a block is left: wake another one; run the block
//       run the block                                   else if it has just worked: look again
//     close the call                                    else: sleep
//     wait until no worker is inside
#pragma once

#include <cstdint>

namespace pyreg {

// The most threads of one call, the caller's included.
constexpr int kMostThreads = 1024;

using RunBlock = void (*)(void* context, int64_t block, int thread);

// A call's work, which moves so many bytes: run(context, block, thread) for each block from 0 to blocks - 1. The
// calling thread is number 0, and all are below `threads`. run must not throw.
struct Work {
  int64_t blocks, bytes;
  int threads;
  RunBlock run;
  void* context;
};

void run_on_workers(const Work& work) noexcept;

// Has the workers stopped before each fork(), which they would not survive, and started again when they are wanted.
void prepare_for_fork();

}  // namespace pyreg
