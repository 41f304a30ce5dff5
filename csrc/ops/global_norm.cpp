#include <cmath>
#include <utility>
#include <vector>

#include "block_squares.h"
#include "exact_sum.h"
#include "functions.h"

namespace pyreg {
namespace {

static_assert(kScaledBits <= ExactSum::kMostShift);

void add_partials(ExactSum& sum, const double* partials, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum.add(std::fabs(partials[i]), partials[i] < 0 ? kScaledBits : 0);
}

Reference global_norm(Arguments& a) {
  Reference list;
  const std::vector<Array> arrays = a.arrays(list);
  if (!a.good()) return {};

  std::vector<double> partials(count_blocks(arrays));
  sum_squares(arrays, Beyond::scaled, partials.data());
  ExactSum sum;
  add_partials(sum, partials.data(), static_cast<int64_t>(partials.size()));
  return Reference(PyFloat_FromDouble(sum.square_root()));
}

Reference norm_partial(Arguments& a) {
  Reference list;
  const std::vector<Array> arrays = a.arrays(list);
  if (!a.good()) return {};

  const Py_ssize_t blocks = count_blocks(arrays);
  Result partials = new_array(Type::float64, 1, &blocks);
  sum_squares(arrays, Beyond::scaled, partials.as<double>());
  return std::move(partials.reference);
}

Reference norm_combine(Arguments& a) {
  Reference list;
  const std::vector<Array> partials = a.arrays(list);
  for (const Array& array : partials) a.require(array.type == Type::float64);
  if (!a.good()) return {};

  ExactSum sum;
  for (const Array& array : partials) add_partials(sum, array.as<double>(), array.size);
  return Reference(PyFloat_FromDouble(sum.square_root()));
}

const Functions functions{named<global_norm>("global_norm"), named<norm_partial>("norm_partial"),
                          named<norm_combine>("norm_combine")};

}  // namespace
}  // namespace pyreg
