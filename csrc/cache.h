// Choices that depend on whether the data of a call stays in the caches. If it does not, the result should be written
// past them: its cache lines then need not be read before they are written. If it does, ordinary stores are faster,
// and the next reader finds the result in the cache.
#pragma once

#include <cstdint>

namespace pyreg {

// Half of 32 MiB, a common size of a last-level cache. The other half is left to what else is in use. (Beside other
// processes, layer_norm_forward of 2 x 12 MiB took twice as long with ordinary stores.)
constexpr int64_t kMostBytesCached = 16 * 1024 * 1024;
constexpr bool outgrows_cache(int64_t bytes) { return bytes > kMostBytesCached; }

// Elements per block. Small blocks let threads finish together and leave some for a late one. Blocks written past the
// caches are larger, because each begins with work that overlaps with nothing and ends within a cache line.
template <typename T>
constexpr int64_t block_elements(bool nontemporal) {
  return (nontemporal ? 512 * 1024 : 32 * 1024) / sizeof(T);
}

// Elements per block of an optimiser's update. If the data is in memory there are enough blocks, and two threads were
// 4 % faster with longer ones.
constexpr int64_t update_block(int64_t bytes) { return (outgrows_cache(bytes) ? 64 : 8) * 1024; }

}  // namespace pyreg
