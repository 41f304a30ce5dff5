// The threads that help a call.
//
// The caller takes blocks one by one, and so does each worker that joins. Nobody waits for a thread that has not
// joined: when no block is left, the caller waits only for workers that are still inside a block. So however busy the
// machine is, a call is not slower than on one thread, except for the cost of waking workers, and they are woken only
// if far more work than that is left. (A parallel region of OpenMP ends only when all of its threads have arrived.)
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

// The most threads of one call, including the caller's.
constexpr int kMostThreads = 1024;

using RunBlock = void (*)(void* context, int64_t block, int thread);

// A call's work: run(context, block, thread) for each block from 0 to blocks - 1. bytes: moved by all blocks. The
// calling thread is number 0, and all numbers are below `threads`. run must not throw.
struct Work {
  int64_t blocks, bytes;
  int threads;
  RunBlock run;
  void* context;
};

void run_on_workers(const Work& work) noexcept;

// Makes fork() stop the workers first, because they would not survive it. They start again when they are wanted.
void prepare_for_fork();

}  // namespace pyreg
