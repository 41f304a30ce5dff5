#include "block_squares.h"
#include "functions.h"
#include "parallel.h"

namespace pyreg {
namespace {

// The penalty of an array, or of all arrays of a list.
Reference l2_penalty(Arguments& a) {
  Reference list;
  const std::vector<Array> params = a.arrays(list);
  const double weight_decay = a.number();
  if (!a.good()) return {};

  std::vector<double> sums(count_blocks(params));
  sum_squares(params, Beyond::infinite, sums.data());
  double total = 0;
  const double* sum = sums.data();
  for (const Array& param : params) {
    double of_param = 0;
    for (int64_t block = 0; block < blocks_of(param.size, kSquaresBlock); ++block) of_param += *sum++;
    total += of_param;
  }
  return Reference(PyFloat_FromDouble(weight_decay / 2 * total + 0.0));  // + 0.0: no -0 for a decay of -0
}

const Functions functions{named<l2_penalty>("l2_penalty")};

}  // namespace
}  // namespace pyreg
