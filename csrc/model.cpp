#include "model.h"

#include <atomic>
#include <cstring>
#include <limits>

namespace pyreg {
namespace {

// Tensors begin at multiples of this many elements, so that blocks begin at cache lines if the arrays do: that of the
// smallest type has fewer.
constexpr int64_t kAlignment = 64;

// Whether an array of this role may have this type. pyreg/_model.py has the same rule.
bool fits(int role, Type type, Type param) {
  if (param == Type::float64 || type == Type::float64) return type == param;
  const bool is_state = role == kExpAvg || role == kExpAvgSq || role == kMaxExpAvgSq;
  return !is_state || type != Type::float16;
}

// What an update reads or writes in memory.
struct Span {
  const char *begin, *end;
  bool written;

  bool operator<(const Span& other) const { return begin < other.begin; }
};

// Whether nothing that is written is in another span too. The spans are in order.
bool no_written_span_overlaps(const Span* begin, const Span* end) {
  const char *furthest = nullptr, *furthest_written = nullptr;  // of the spans before
  for (const Span* span = begin; span != end; ++span) {
    if (span->begin < (span->written ? furthest : furthest_written)) return false;
    furthest = std::max(furthest, span->end);
    if (span->written) furthest_written = std::max(furthest_written, span->end);
  }
  return true;
}

Precision precision_of(const UpdateArrays& arrays, bool is_double) {
  for (const Precision precision : {Precision::same, Precision::bfloat16, Precision::master}) {
    bool matches = precision != Precision::master || arrays[kParamOut].data;
    for (int role = 0; role < kRoles; ++role) {
      const auto [data, type] = arrays.of[role];
      matches &= !data || type == type_in(precision, role, is_double ? Type::float64 : Type::float32);
    }
    if (matches) return precision;
  }
  return Precision::other;
}

}  // namespace

Tail::Tail(const UpdateArrays& arrays, int64_t count, int64_t size)
    : original_(arrays), count_(count), copy_(arrays) {
  for (int role = 0; role < kRoles; ++role) {
    auto& [data, type] = copy_.of[role];
    if (!data) continue;
    std::memset(bytes_[role], 0, size * bytes_of(type));
    data = static_cast<char*>(std::memcpy(bytes_[role], data, count * bytes_of(type)));
  }
}

void Tail::write() const {
  for (int role = 0; role < kRoles; ++role) {
    const auto [data, type] = original_.of[role];
    if (data && role != kGrad) std::memcpy(data, copy_.of[role].data, count_ * bytes_of(type));
  }
}

void Model::read(Arguments& a, const UpdateOptions& options) {
  if (!a.good_so_far()) return;
  Py_ssize_t count = 1;
  for (int role = 0; role < kRoles; ++role) {
    if (!objects_[role]) continue;
    lists_[role] = items_of(objects_[role]);
    a.require(static_cast<bool>(lists_[role]) == static_cast<bool>(lists_[kParam]));
    if (!lists_[role]) continue;
    if (role == kParam) count = PyTuple_GET_SIZE(lists_[role].get());
    a.require(PyTuple_GET_SIZE(lists_[role].get()) == count);
  }
  if (!a.good_so_far()) return;
  tensors_.reserve(count);
  for (Py_ssize_t i = 0; i < count && a.good_so_far(); ++i) {
    PyObject* objects[kRoles];
    for (int role = 0; role < kRoles; ++role)
      objects[role] = lists_[role] ? PyTuple_GET_ITEM(lists_[role].get(), i) : objects_[role];
    add_tensor(a, objects);
    a.require(tensors_.back().is_double || options.grad_scale <= std::numeric_limits<float>::max());
  }
  a.require(are_disjoint());
}

void Model::add_tensor(Arguments& a, PyObject* const* objects) {
  const Array param = a.dense_of(objects[kParam], true);
  Tensor tensor = {param.size, places_, param.type == Type::float64, {}, Precision::other};
  for (int role = 0; role < kRoles; ++role) {
    if (!objects[role]) continue;
    const Array array = role == kParam ? param : a.dense_of(objects[role], role != kGrad);
    a.require(array && fits(role, array.type, param.type) && same_layout(array, param));
    tensor.arrays.of[role] = {array.as<char>(), array.type};
    bytes_ += array.bytes * (role == kGrad || role == kParamOut ? 1 : 2);  // others are read and written
    if (role == kGrad) grad_bytes_ += array.bytes;
  }
  tensor.precision = precision_of(tensor.arrays, tensor.is_double);
  places_ += (tensor.size + kAlignment - 1) / kAlignment * kAlignment;
  tensors_.push_back(tensor);
}

bool Model::are_disjoint() const {
  Span few[kRoles];
  std::vector<Span> many(tensors_.size() == 1 ? 0 : kRoles * tensors_.size());
  Span *const begin = many.empty() ? few : many.data(), *end = begin;
  // Arrays of one role were often made one after the other, so the spans are runs in order, which a stable sort
  // merges without many branches that go either way.
  for (int role = 0; role < kRoles; ++role)
    for (const Tensor& tensor : tensors_) {
      const auto [data, type] = tensor.arrays.of[role];
      if (data && tensor.size > 0) *end++ = {data, data + tensor.size * bytes_of(type), role != kGrad};
    }
  if (many.empty())
    std::sort(begin, end);
  else
    std::stable_sort(begin, end);
  return no_written_span_overlaps(begin, end);
}

bool Model::all_finite(double scale) const {
  std::atomic<bool> finite = true;
  each_piece(grad_bytes_, [&](const Tensor& tensor, int64_t begin, int64_t end) {
    if (!finite.load(std::memory_order_relaxed)) return;
    Tensor grad_alone = tensor;
    grad_alone.arrays = {};
    grad_alone.arrays.of[kGrad] = tensor.arrays[kGrad];
    in_multiples(grad_alone, begin, end, tensor.multiple(), [&](int64_t n, const UpdateArrays& arrays) {
      const bool good = tensor.is_double ? kernels<double>().all_finite(n, arrays[kGrad], scale)
                                         : kernels<float>().all_finite(n, arrays[kGrad], static_cast<float>(scale));
      if (!good) finite = false;
    });
  });
  return finite;
}

}  // namespace pyreg
