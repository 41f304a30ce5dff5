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
  const auto a = py::reinterpret_borrow<py::array>(array);
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

// Whether two arrays overlap without being the same memory from end to end.
bool overlap_partly(const py::array& a, const py::array& b) {
  const MemoryRange first = range_of(a), second = range_of(b);
  return first.overlaps(second) && first != second;
}

}  // namespace

void bind_overlap(py::module_& m) {
  m.def("first_overlap", first_overlap);
  m.def("overlap_partly", overlap_partly, py::arg("a"), py::arg("b"));
}

}  // namespace pyreg
