// What depends on whether the bytes that a call moves stay in the caches. If not, it should write its result past
// them: its lines then need not be read before they are written. If so, ordinary stores are faster, and whoever reads
// the result next finds it in the cache.
#pragma once

#include <cstdint>

namespace pyreg {

// 32 MiB is a common last-level cache, or one process's share of a larger one.
constexpr bool outgrows_cache(int64_t bytes) { return bytes > 32 * 1024 * 1024; }

// Elements of a block: small, so that threads finish together and one that is late finds some. Those of a result
// that is written past the caches are larger, as each begins with work that nothing overlaps and ends within a line.
template <typename T>
constexpr int64_t block_elements(bool nontemporal) {
  return (nontemporal ? 1024 * 1024 : 32 * 1024) / sizeof(T);
}

// Of an optimiser's update. In memory, where there are blocks enough, two threads were 4 % faster with longer ones.
constexpr int64_t update_block(int64_t bytes) { return (outgrows_cache(bytes) ? 64 : 8) * 1024; }

}  // namespace pyreg
