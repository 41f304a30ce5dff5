// Sums of squares, of blocks of a fixed size from the start of each array: the same for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "arguments.h"

namespace pyreg {

// Elements per block. Results depend on this number.
constexpr int64_t kSquaresBlock = 16 * 1024;

// The squares of float64 elements may add up to more than a double can hold. Then the elements are multiplied by
// kScaleDown first, which divides the sum by 2**kScaledBits.
constexpr double kScaleDown = 0x1p-520;
constexpr int kScaledBits = 2 * 520;

// What becomes of a sum that a double cannot hold: it is infinite, or the negative of the sum divided by
// 2**kScaledBits.
enum class Beyond { infinite, scaled };

int64_t count_blocks(const std::vector<Array>& arrays);

// Writes the sum of squares of each block of each array, in order.
void sum_squares(const std::vector<Array>& arrays, Beyond beyond, double* sums);

}  // namespace pyreg
