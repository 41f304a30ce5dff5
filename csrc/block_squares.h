// Sums of squares, of blocks of a fixed size from the start of each array: the same for any number of threads.
#pragma once

#include <vector>

#include "arguments.h"

namespace pyreg {

// Elements per block. Results depend on this number.
constexpr int64_t kSquaresBlock = 16 * 1024;

// The squares of float64 elements may add up to more than a double can hold. Then the elements are multiplied by
// kBeyondScale first, which divides the sum by 2**kBeyondBits.
constexpr double kBeyondScale = 0x1p-520;
constexpr int kBeyondBits = 2 * 520;

int64_t square_blocks(const std::vector<Array>& arrays);

// Writes the sum of squares of each block of each array, in order. A sum that a double cannot hold is infinite; or,
// if `negative_beyond`, the negative of the sum divided by 2**kBeyondBits.
void sum_squares(const std::vector<Array>& arrays, bool negative_beyond, double* sums);

}  // namespace pyreg
