#include "result_memory.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "kernels/table.h"

// NumPy's memory handlers: https://numpy.org/neps/nep-0049.html
//
// This one gets its memory from NumPy's, with a line more, so NumPy's cache of small arrays, its advice to use huge
// pages for large ones, and tracemalloc work as for other arrays. An array is freed by the handler that made it, also
// after ndarray.resize.

// The header of Python 3.11 lacks the extern "C".
namespace of_c {
extern "C" int PyTraceMalloc_Track(unsigned domain, uintptr_t data, size_t size);
}

namespace pyreg {
namespace {

namespace py = pybind11;
using py::detail::npy_api;

// The layouts of numpy/ndarraytypes.h.
struct Allocator {
  void* context;
  void* (*malloc)(void* context, size_t size);
  void* (*calloc)(void* context, size_t count, size_t size);
  void* (*realloc)(void* context, void* data, size_t size);
  void (*free)(void* context, void* data, size_t size);
};

struct Handler {
  char name[127];
  uint8_t version;
  Allocator allocator;
};

struct ArrayFields {
  py::detail::PyArray_Proxy proxy;
  PyObject* weakrefs;
  void* buffer_info;
  PyObject* memory_handler;
};

constexpr char kCapsuleName[] = "mem_handler";
constexpr unsigned kTracemallocDomain = 389047;  // NumPy's

Allocator numpys;
PyObject* numpys_handler = nullptr;
PyObject* (*current_handler)() = nullptr;

// Stands before the first element. NumPy's memory starts at a multiple of 16 bytes, so there is room for it.
struct Header {
  char* memory;
  size_t size;  // of `memory`
};
static_assert(sizeof(Header) <= 16);

Header header_of(void* data) {
  Header header;
  std::memcpy(&header, static_cast<char*>(data) - sizeof header, sizeof header);
  return header;
}

// glibc maps large blocks, and NumPy's arrays there begin 16 bytes after the start of a page. Arrays that begin at
// the same place of their pages are slow together (CHANGELOG.md, Decisions). So large results begin after the first,
// second and third quarter of a page in turn.
constexpr size_t kLarge = 128 * 1024;  // glibc maps no smaller blocks
constexpr size_t kQuarter = 1024;

constexpr size_t with_room(size_t size) { return size + kLineBytes + (size >= kLarge ? 3 * kQuarter : 0); }

size_t bytes_to_skip(size_t size) {
  static std::atomic<unsigned> turn = 0;
  return size >= kLarge ? (1 + turn.fetch_add(1, std::memory_order_relaxed) % 3) * kQuarter : 0;
}

// The first line after `from`, a place in the memory with room for a header before it.
void* after_header(const Header& header, char* from) {
  char* const data = from + -reinterpret_cast<uintptr_t>(from) % kLineBytes;
  std::memcpy(data - sizeof header, &header, sizeof header);
  return data;
}

void* in_new_memory(void* memory, size_t size) {
  if (!memory) return nullptr;
  const Header header{static_cast<char*>(memory), with_room(size)};
  return after_header(header, header.memory + bytes_to_skip(size) + sizeof header);
}

void* allocate(void*, size_t size) { return in_new_memory(numpys.malloc(numpys.context, with_room(size)), size); }

void* allocate_zeros(void*, size_t count, size_t size) {
  return in_new_memory(numpys.calloc(numpys.context, 1, with_room(count * size)), count * size);
}

void release(void*, void* data, size_t) {
  if (!data) return;
  const Header header = header_of(data);
  numpys.free(numpys.context, header.memory, header.size);
}

void* reallocate(void*, void* data, size_t size) {
  if (!data) return allocate(nullptr, size);
  const Header old = header_of(data);
  const size_t before = static_cast<char*>(data) - old.memory;
  Header header{nullptr, before + size + kLineBytes};
  header.memory = static_cast<char*>(numpys.realloc(numpys.context, old.memory, header.size));
  if (!header.memory) return nullptr;
  char* const from = header.memory + before;
  char* const moved = from + -reinterpret_cast<uintptr_t>(from) % kLineBytes;
  std::memmove(moved, from, std::min(old.size - before, size));
  return after_header(header, moved);
}

Handler handler = {"pyreg", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};
PyObject* capsule_of_handler = nullptr;

// The number of bytes that NumPy reserves for such an array; negative if that is too large.
Py_ssize_t data_bytes(Py_ssize_t item_bytes, int axes, const Py_ssize_t* shape) {
  Py_ssize_t bytes = item_bytes;
  for (int axis = 0; axis < axes; ++axis)
    if (__builtin_mul_overflow(bytes, shape[axis], &bytes)) return -1;
  return bytes > 0 ? bytes : item_bytes;
}

// Whether the user has another handler in place of NumPy's.
bool has_users_handler() {
  PyObject* const current = current_handler();
  Py_XDECREF(current);
  return current != numpys_handler;
}

}  // namespace

void find_numpys_memory() {
  const py::object capsule = py::module_::import("numpy._core.multiarray").attr("_ARRAY_API");
  void** const api = static_cast<void**>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
  if (!api) throw py::error_already_set();
  // PyDataMem_GetHandler and PyDataMem_DefaultHandler in numpy/__multiarray_api.h.
  current_handler = reinterpret_cast<PyObject* (*)()>(api[305]);
  numpys_handler = *static_cast<PyObject**>(api[306]);
  const auto* const found = static_cast<Handler*>(PyCapsule_GetPointer(numpys_handler, kCapsuleName));
  capsule_of_handler = PyCapsule_New(&handler, kCapsuleName, nullptr);
  if (!found || !capsule_of_handler) throw py::error_already_set();
  numpys = found->allocator;
}

PyObject* new_array_on_line(PyObject* descr, Py_ssize_t item_bytes, int axes, const Py_ssize_t* shape) {
  auto& api = npy_api::get();
  const auto new_array = [&](void* data, int flags) {
    return api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, axes, shape, nullptr, data, flags, nullptr);
  };
  const Py_ssize_t bytes = data_bytes(item_bytes, axes, shape);
  if (bytes < 0 || has_users_handler()) return new_array(nullptr, 0);
  void* const data = allocate(nullptr, bytes);
  if (!data) return new_array(nullptr, 0);  // NumPy's error, or its memory, which needs a line less
  PyObject* const made = new_array(data, npy_api::NPY_ARRAY_WRITEABLE_);
  if (!made) {
    release(nullptr, data, bytes);
    return nullptr;
  }
  of_c::PyTraceMalloc_Track(kTracemallocDomain, reinterpret_cast<uintptr_t>(data), bytes);
  auto* const fields = reinterpret_cast<ArrayFields*>(made);
  fields->memory_handler = Py_NewRef(capsule_of_handler);
  fields->proxy.flags |= npy_api::NPY_ARRAY_OWNDATA_;
  return made;
}

}  // namespace pyreg
