#include "functions.h"

namespace pyreg {
namespace {

// The first 8 bytes of Philox4x32-10 of the counter (n, 0, 2): domain 2 of the random stream. kernels/philox.h has
// the generator in vectors.
uint64_t folded(uint64_t key, uint64_t n) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c[4] = {static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, 2};
  for (int round = 0; round < 10; ++round) {
    const uint64_t u = uint64_t{0xD2511F53} * c[0], v = uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<uint32_t>(v >> 32) ^ c[1] ^ k0, c[1] = static_cast<uint32_t>(v);
    c[2] = static_cast<uint32_t>(u >> 32) ^ c[3] ^ k1, c[3] = static_cast<uint32_t>(u);
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  return c[0] | uint64_t{c[1]} << 32;
}

Reference fold_in(Arguments& a) {
  uint64_t key = a.natural();
  const Reference numbers = items_of(a.object());
  a.require(static_cast<bool>(numbers));
  if (!a.good()) return {};
  Arguments all(&PyTuple_GET_ITEM(numbers.get(), 0), PyTuple_GET_SIZE(numbers.get()));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(numbers.get()); ++i) key = folded(key, all.natural());
  if (!all.good()) return {};
  return Reference(PyLong_FromUnsignedLongLong(key));
}

const Functions functions{named<fold_in>("fold_in")};

}  // namespace
}  // namespace pyreg
