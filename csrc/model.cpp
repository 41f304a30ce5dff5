#include "model.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "cache.h"
#include "parallel.h"

namespace pyreg {
namespace {

// Tensors begin at multiples of this many elements, so that blocks begin at cache lines if the arrays do: that of the
// smallest type has fewer.
constexpr int64_t kAlignment = 64;

constexpr int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Whether the array has a row for each of `count` rows of the parameter.
bool are_rows(const Array& array, const Array& param, size_t count) {
  return array.in_order && array.axes == param.axes && array.shape[0] == static_cast<Py_ssize_t>(count) &&
         std::equal(array.shape + 1, array.shape + array.axes, param.shape + 1);
}

// Whether these are the types that an update of this precision has.
bool have_types_of(Precision precision, const UpdateArrays& arrays, Type grad, Type same) {
  if (grad != type_in(precision, kGrad, same)) return false;
  for (int role = 0; role < kRoles; ++role)
    if (arrays.of[role].data && arrays.of[role].type != type_in(precision, role, same)) return false;
  return precision != Precision::master || arrays[kParamOut].data;
}

// A model with its gradients, in a capsule (ops/prepared.cpp); null if the object is something else.
const Model* model_in(PyObject* object) {
  const bool is_one = object && PyCapsule_IsValid(object, Model::kWithGradients);
  return is_one ? static_cast<Model*>(PyCapsule_GetPointer(object, Model::kWithGradients)) : nullptr;
}

}  // namespace

bool Model::fits(int role, Type type, Type param) {
  if (param == Type::float64 || type == Type::float64) return type == param;
  const bool is_state = role == kExpAvg || role == kExpAvgSq || role == kMaxExpAvgSq;
  return !is_state || type != Type::float16;
}

Precision Model::precision_of(const Tensor& tensor, Type grad) {
  for (const Precision precision : {Precision::same, Precision::bfloat16, Precision::master})
    if (have_types_of(precision, tensor.arrays, grad, tensor.is_double ? Type::float64 : Type::float32))
      return precision;
  return Precision::other;
}

bool Model::no_written_span_overlaps(const Span* begin, const Span* end) {
  const char *furthest = nullptr, *furthest_written = nullptr;  // of the spans before
  for (const Span* span = begin; span != end; ++span) {
    if (span->begin < (span->written ? furthest : furthest_written)) return false;
    furthest = std::max(furthest, span->end);
    if (span->written) furthest_written = std::max(furthest_written, span->end);
  }
  return true;
}

// --- arguments

void Model::take(Arguments& a, Role role) {
  const bool is_given = take_optional(a, role);
  a.require(is_given || model_in(objects_[kParam]));
}

UpdateOptions Model::take_options(Arguments& a, bool maximize, std::initializer_list<NamedRole> names) {
  UpdateOptions options = {.maximize = maximize, .grad_scale = a.number(), .skip_nonfinite = a.flag()};
  take_optional(a, kEma);
  options.ema_decay = a.number(0, 1);
  take_optional(a, kParamOut);
  PyObject* const rows = a.object();
  rows_object_ = rows == Py_None ? nullptr : rows;
  Rounding& rounding = options.rounding;
  rounding.take(a, names);
  PyObject* const key = a.object();
  if (key != Py_None || rounding.is_any()) {
    Arguments one(&key, 1);
    rounding.key = one.natural();
    a.require(one.good());
  }
  rounding.offset = a.natural();
  return options;
}

void Model::read(Arguments& a, const UpdateOptions& options) {
  if (const Model* const whole = model_in(objects_[kParam])) {
    read_part(a, *whole, options.rounding);
  } else {
    if (a.good_so_far()) read_lists(a, options.rounding, false);
    a.require(options.rounding.offset <= uint64_t{0} - std::max<uint64_t>(1, in_stream_));
    a.require(are_disjoint());
  }
  if (!a.good_so_far()) return;
  bool all_double = true;
  for (const Tensor* tensor = first_; tensor != last_; ++tensor) {
    all_double &= tensor->is_double;
    bytes_ += tensor->bytes + tensor->size * bytes_of(gradient_of(tensor).array.type);
    for (int role = 0; role < kRoles; ++role) lacks_[role] |= !tensor->arrays.of[role].data;
  }
  a.require(all_double || options.grad_scale <= std::numeric_limits<float>::max());
}

// some_lack: whether a parameter may lack arrays that others have: None in their place.
void Model::read_lists(Arguments& a, const Rounding& rounding, bool some_lack) {
  Py_ssize_t count = 1;
  const auto list_of = [&](PyObject* object) {
    Reference list = items_of(object);
    a.require(static_cast<bool>(list) == static_cast<bool>(lists_[kParam]));
    a.require(!list || PyTuple_GET_SIZE(list.get()) == count);
    return list;
  };
  lists_[kParam] = items_of(objects_[kParam]);
  if (lists_[kParam]) count = PyTuple_GET_SIZE(lists_[kParam].get());
  for (int role = kParam + 1; role < kRoles; ++role)
    if (objects_[role]) lists_[role] = list_of(objects_[role]);
  if (rows_object_ && lists_[kParam]) rows_list_ = list_of(rows_object_);
  if (!a.good_so_far()) return;
  tensors_.reserve(count);
  gradients_.reserve(count);
  for (Py_ssize_t i = 0; i < count && a.good_so_far(); ++i) {
    const auto item = [i](const Reference& list, PyObject* object) {
      return list ? PyTuple_GET_ITEM(list.get(), i) : object;
    };
    PyObject* objects[kRoles];
    for (int role = 0; role < kRoles; ++role) {
      objects[role] = item(lists_[role], objects_[role]);
      if (some_lack && objects[role] == Py_None) objects[role] = nullptr;
    }
    PyObject* const rows = item(rows_list_, rows_object_);
    add_tensor(a, objects, rows == Py_None ? nullptr : rows, rounding);
  }
  first_ = tensors_.data();
  last_ = first_ + tensors_.size();
  first_gradient_ = gradients_.data();
}

void Model::add_tensor(Arguments& a, PyObject* const* objects, PyObject* rows, const Rounding& rounding) {
  const Array param = a.dense_of(objects[kParam], true);
  if (!param) return;
  Tensor tensor;
  tensor.size = tensor.whole = param.size;
  tensor.in_stream = in_stream_;
  tensor.is_double = param.type == Type::float64;
  Gradient gradient;
  if (rows && param) read_rows(a, rows, param, tensor);
  for (int role = 0; role < kRoles; ++role) {
    if (!objects[role]) continue;
    const Array array = role == kParam ? param : a.dense_of(objects[role], role != kGrad);
    const bool laid_out =
        role == kGrad && rows ? are_rows(array, param, rows_.back().size()) : same_layout(array, param);
    a.require(array && fits(role, array.type, param.type) && laid_out);
    Stored& kept = role == kGrad ? gradient.array : tensor.arrays.of[role];
    kept = {array.as<char>(), array.type};
    if (role != kGrad)  // all but a copy are read and written
      tensor.bytes += tensor.size * bytes_of(array.type) * (role == kParamOut ? 1 : 2);
    tensor.is_random |= rounding.is_random[role] && is_half(array.type);
  }
  gradient.precision = precision_of(tensor, gradient.array.type);
  tensor.has_copy = tensor.arrays[kParamOut].data != nullptr;
  if (tensor.is_random && !param.in_order && param.size > 0) tensor.tiles = &tiles_.emplace_back(param);
  tensor.places = tensor.tiles ? tensor.tiles->count() * Tiles::kMost : tensor.size;
  tensor.place = rounded_up(places_, tensor.tiles ? Tiles::kMost : kAlignment);
  places_ = tensor.place + tensor.places;
  in_stream_ += param.size;
  tensors_.push_back(tensor);
  gradients_.push_back(gradient);
}

void Model::read_rows(Arguments& a, PyObject* object, const Array& param, Tensor& tensor) {
  std::vector<int64_t>& rows = rows_.emplace_back(a.indices_of(object));
  const int64_t length = param.axes > 0 ? param.shape[0] : 0;
  a.require(param.axes > 0 && param.in_order);
  if (!a.good_so_far()) return;
  tensor.row = length > 0 ? param.size / length : 0;
  tensor.size = tensor.row * static_cast<int64_t>(rows.size());
  tensor.rows = rows.data();
  std::vector<int64_t> sorted = rows;
  std::sort(sorted.begin(), sorted.end());
  a.require(sorted.empty() || (sorted.front() >= 0 && sorted.back() < length));
  a.require(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
}

bool Model::are_disjoint() const {
  Span few[kRoles];
  std::vector<Span> many(tensors_.size() == 1 ? 0 : kRoles * tensors_.size());
  Span* const begin = many.empty() ? few : many.data();
  Span* const end = add_spans(begin);
  if (!many.empty()) std::stable_sort(begin, end);
  for (Span* i = begin; many.empty() && i != end; ++i)
    for (Span* k = i; k != begin && *k < k[-1]; --k) std::swap(*k, k[-1]);
  return no_written_span_overlaps(begin, end);
}

Span* Model::add_spans(Span* end) const {
  // Arrays of one role were often made one after the other, so the spans are runs in order, which a stable sort
  // merges without many branches that go either way.
  for (int role = 0; role < kRoles; ++role)
    for (const Tensor& tensor : tensors_) {
      const auto [data, type] = role == kGrad ? gradient_of(&tensor).array : tensor.arrays.of[role];
      const int64_t size = role == kGrad ? tensor.size : tensor.whole;
      if (data && size > 0) *end++ = {data, data + size * bytes_of(type), role != kGrad};
    }
  return end;
}

// --- the work

// Calls run(parts, tensor, begin, end) for parts of all tensors, on as many threads as are useful. bytes: moved by
// all.
template <typename Run>
void Model::each_part(int64_t bytes, const PieceWork& work, const Rounding& rounding, Run run) const {
  if (first_ == last_) return;
  const int64_t before_first = first_->place, places = last_[-1].place + last_[-1].places - before_first;
  parallel_blocks(places, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
    begin += before_first;
    end += before_first;
    const auto before = [](int64_t place, const Tensor& tensor) {
      return place < tensor.place;
    };
    Parts parts(work, rounding);
    const Tensor* tensor = std::upper_bound(first_, last_, begin, before) - 1;
    for (; tensor != last_ && tensor->place < end; ++tensor) {
      const int64_t from = std::max<int64_t>(begin - tensor->place, 0);
      const int64_t to = std::min(end - tensor->place, tensor->places);
      if (from < to) run(parts, tensor, from, to);
    }
    parts.finish();
  });
}

bool Model::update(const UpdateOptions& options, const PieceWork& work) const {
  const ReleasedGil released;
  if (options.skip_nonfinite && !all_finite(options.grad_scale)) return false;
  each_part(bytes_, work, options.rounding, [&](Parts& parts, const Tensor* tensor, int64_t begin, int64_t end) {
    parts.run(*tensor, gradient_of(tensor), begin, end);
  });
  return true;
}

bool Model::all_finite(double scale) const {
  struct Work final : PieceWork {
    explicit Work(double scale) : scale(scale) {}
    void run(bool is_double, Precision, int64_t n, const UpdateArrays& arrays, const RandomNumbers*) const override {
      const bool good = is_double ? kernels<double>().all_finite(n, arrays[kGrad], scale)
                                  : kernels<float>().all_finite(n, arrays[kGrad], static_cast<float>(scale));
      if (!good) finite.store(false, std::memory_order_relaxed);
    }
    bool good() const { return finite.load(std::memory_order_relaxed); }

    const double scale;
    mutable std::atomic<bool> finite = true;
  };
  const Work work(scale);
  int64_t bytes = 0;
  for (const Tensor* tensor = first_; tensor != last_; ++tensor)
    bytes += tensor->size * bytes_of(gradient_of(tensor).array.type);
  const Rounding nearest;
  each_part(bytes, work, nearest, [&](Parts& parts, const Tensor* tensor, int64_t begin, int64_t end) {
    end = std::min(end, tensor->size);  // tiles have more places
    if (begin < end && work.good()) parts.run_gradient(*tensor, gradient_of(tensor), begin, end);
  });
  return work.good();
}

}  // namespace pyreg
