// Which arrays of an update are rounded by random numbers, and which numbers those are.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "arguments.h"

namespace pyreg {

// The name of an array in Python, and its role.
using NamedRole = std::pair<std::string_view, Role>;

struct Rounding {
  bool is_random[kRoles] = {};
  uint64_t key = 0, offset = 0;

  bool is_any() const;
  // Takes the next argument: "nearest", "stochastic", or a dict with one of them for some of these arrays.
  void take(Arguments& a, std::initializer_list<NamedRole> names);
};

}  // namespace pyreg
