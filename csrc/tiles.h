// Arrays that are dense but not in C order, cut into tiles. Random numbers follow the C order, so those of a tile are
// made along the last axis, and put into the order of the memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "arguments.h"

namespace pyreg {

class Tiles {
 public:
  // A tile has `runs` runs of `length` elements, which are neighbours in memory. In C order, the elements of a run
  // are place_step apart, and those of neighbouring runs, 1.
  struct Tile {
    int64_t at;     // of its first element in memory
    int64_t place;  // and in C order
    int64_t length, runs;
  };
  // As many elements as a tile may have. A run of kRun elements is long enough for the kernels.
  static constexpr int64_t kMost = 2048, kRun = 32;

  explicit Tiles(const Array& array) {
    int64_t place_step = 1;
    for (int axis = array.axes - 1; axis >= 0; --axis) {
      const Axis one = {array.shape[axis], array.strides[axis] / bytes_of(array.type), place_step};
      place_step *= one.length;
      if (one.length > 1) axes_.push_back(one);
    }
    // The axes are longer than 1, and the array is not in C order, so there are at least two.
    const auto first = std::min_element(axes_.begin(), axes_.end(),
                                        [](const Axis& a, const Axis& b) { return a.memory_step < b.memory_step; });
    along_memory_ = *first;
    axes_.erase(first);
    if (along_memory_.place_step == 1) {
      across_ = {1, 0, 0};
      length_ = kMost;
    } else {
      across_ = axes_.front();
      axes_.erase(axes_.begin());
      // If an axis is short, the other side of a tile is long.
      runs_ = std::min(across_.length, kMost / std::min(along_memory_.length, kRun));
      length_ = std::min(along_memory_.length, kMost / runs_ / kRun * kRun);
      if (length_ == 0) length_ = std::min(along_memory_.length, kRun);
    }
    count_ = lengthwise() * crosswise();
    for (const Axis& axis : axes_) count_ *= axis.length;
  }

  int64_t count() const { return count_; }
  int64_t place_step() const { return along_memory_.place_step; }
  int64_t memory_step() const { return across_.memory_step; }  // between runs

  Tile operator[](int64_t index) const {
    const auto next = [&](int64_t length) {
      const int64_t digit = index % length;
      index /= length;
      return digit;
    };
    const int64_t first = next(lengthwise()) * length_, run = next(crosswise()) * runs_;
    Tile tile = {first + run * across_.memory_step, first * along_memory_.place_step + run,
                 std::min(length_, along_memory_.length - first), std::min(runs_, across_.length - run)};
    for (const Axis& axis : axes_) {
      const int64_t digit = next(axis.length);
      tile.at += digit * axis.memory_step;
      tile.place += digit * axis.place_step;
    }
    return tile;
  }

 private:
  struct Axis {
    int64_t length, memory_step, place_step;
  };

  int64_t lengthwise() const { return (along_memory_.length + length_ - 1) / length_; }
  int64_t crosswise() const { return (across_.length + runs_ - 1) / runs_; }

  // across_: the last axis, unless it is along_memory_. axes_: the others.
  Axis along_memory_, across_;
  std::vector<Axis> axes_;
  int64_t length_, runs_ = 1, count_;  // of a tile, unless it ends at the end of an axis
};

}  // namespace pyreg
