// Whether arrays share memory: a comparison of ranges, which is exact for contiguous arrays.
#include "ops/ops.h"

namespace pyreg {
namespace {

struct MemoryRange {
  const char *begin, *end;

  bool overlaps(const MemoryRange& other) const { return begin < other.end && other.begin < end; }
  bool operator==(const MemoryRange&) const = default;
};

MemoryRange range_of(py::handle array) {
  const auto a = py::cast<py::array>(array);
  const auto* begin = static_cast<const char*>(a.data());
  return {begin, begin + a.nbytes()};
}

// (i, j) of the first two of the arrays (or Nones) that overlap, else None.
py::object first_overlap(const py::args& arrays) {
  for (size_t j = 1; j < arrays.size(); ++j) {
    if (arrays[j].is_none()) continue;
    const MemoryRange range = range_of(arrays[j]);
    for (size_t i = 0; i < j; ++i)
      if (!arrays[i].is_none() && range.overlaps(range_of(arrays[i]))) return py::make_tuple(i, j);
  }
  return py::none();
}

// The index of the first of the arrays (or Nones) that `out` overlaps, else None. It may be one of the first
// `may_be` from end to end.
std::optional<size_t> first_conflict(const py::array& out, const py::tuple& arrays, size_t may_be) {
  const MemoryRange range = range_of(out);
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (arrays[i].is_none()) continue;
    const MemoryRange other = range_of(arrays[i]);
    if (range.overlaps(other) && !(i < may_be && range == other)) return i;
  }
  return std::nullopt;
}

}  // namespace

void bind_overlap(py::module_& m) {
  m.def("first_overlap", first_overlap);
  m.def("first_conflict", first_conflict, py::arg("out"), py::arg("arrays"), py::arg("may_be"));
}

}  // namespace pyreg
