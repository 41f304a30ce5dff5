// The instruction-set levels: which were built, which the processor has, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace pyreg {

// The kernels of the level in use.
template <typename S>
const Kernels<S>& kernels();

std::vector<std::string> isa_built();  // lowest first
std::vector<std::string> isa_found();  // the built levels that the processor has
std::string isa_chosen();

// Uses the named level from now on; "baseline" is the lowest. Throws std::invalid_argument if the name is unknown or
// the processor lacks the level.
void use_isa(const std::string& name);

// Uses the highest level that the processor has, or the one that PYREG_ISA names.
void choose_isa();

}  // namespace pyreg
