#include <algorithm>
#include <cstdint>
#include <memory>

#include "cache.h"
#include "dispatch.h"
#include "functions.h"
#include "kernels/dropout_scale.h"
#include "parallel.h"
#include "whole_mask.h"

namespace pyreg {
namespace {

// x, y: (samples, ...). Each sample uses one element of the random stream.
Reference drop_path(Arguments& a) {
  const Array x = a.array();
  a.require(x.axes > 0);
  const int64_t samples = x.axes > 0 ? x.shape[0] : 0;
  const DropoutArguments dropout = a.dropout_in_training(samples);
  const Array out = a.out({x});
  if (!a.good()) return {};

  Result y = result(out, x);
  with_dtype(x, [&](auto zero) {
    using S = decltype(zero);
    const ReleasedGil released;
    if (x.size == 0) return;
    const std::unique_ptr<uint8_t[]> kept(new uint8_t[samples]);
    make_whole_mask(dropout, samples, kept.get());
    const auto scale = dropout_scale<Compute<S>>(dropout.threshold);

    // A large sample is divided into pieces of one block. Small samples are grouped into a block.
    const auto kernel = kernels<S>().drop_path;
    const bool nontemporal = outgrows_cache(2 * x.bytes) && !y.replaces({x});
    const int64_t n = x.size / samples, block = block_elements<S>(nontemporal), pieces = blocks_of(n, block);
    const auto run = [&](int64_t rows, int64_t length, int64_t sample, int64_t at) {
      kernel(rows, length, x.as<S>() + at, &kept[sample], scale, y.as<S>() + at, nontemporal);
    };
    const int64_t together = std::max<int64_t>(1, block / n);
    parallel_blocks(samples * pieces, together, 2 * x.bytes, [&](int64_t begin, int64_t end) {
      if (pieces == 1) return run(end - begin, n, begin, begin * n);
      const int64_t sample = begin / pieces, first = begin % pieces * block;
      run(1, std::min(block, n - first), sample, sample * n + first);
    });
  });
  return std::move(y.reference);
}

const Functions functions{named<drop_path>("drop_path")};

}  // namespace
}  // namespace pyreg
