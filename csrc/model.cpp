#include "model.h"

#include <algorithm>
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

constexpr int64_t rounded_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Whether the array has a row for each of `count` rows of the parameter.
bool are_rows(const Array& array, const Array& param, size_t count) {
  return array.in_order && array.axes == param.axes && array.shape[0] == static_cast<Py_ssize_t>(count) &&
         std::equal(array.shape + 1, array.shape + array.axes, param.shape + 1);
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

UpdateArrays advanced(UpdateArrays arrays, int64_t by) {
  for (int role = 0; role < kRoles; ++role) {
    auto& [data, type] = arrays.of[role];
    if (data) data += by * bytes_of(type);
  }
  return arrays;
}

// A copy of what is left of arrays after the multiple that the kernels take, followed by zeros.
class Tail {
 public:
  // count: what is left; size: what the copy has.
  Tail(const UpdateArrays& arrays, int64_t count, int64_t size) : original_(arrays), count_(count), copy_(arrays) {
    for (int role = 0; role < kRoles; ++role) {
      auto& [data, type] = copy_.of[role];
      if (!data) continue;
      std::memset(bytes_[role], 0, size * bytes_of(type));
      data = static_cast<char*>(std::memcpy(bytes_[role], data, count * bytes_of(type)));
    }
  }
  Tail(const Tail&) = delete;

  const UpdateArrays& arrays() const { return copy_; }
  // Copies back all but the gradient.
  void write() const {
    for (int role = 0; role < kRoles; ++role) {
      const auto [data, type] = original_.of[role];
      if (data && role != kGrad) std::memcpy(data, copy_.of[role].data, count_ * bytes_of(type));
    }
  }

 private:
  const UpdateArrays original_;
  const int64_t count_;
  UpdateArrays copy_;
  alignas(kLineBytes) char bytes_[kRoles][kGroupBytes];
};

// random: null if all arrays are rounded to nearest.
void run_in_multiples(const Tensor& tensor, const UpdateArrays& arrays, const RandomNumbers* random, int64_t n,
                      const PieceWork& work) {
  const int64_t multiple = tensor.multiple(), left = n % multiple, whole = n - left;
  if (whole > 0) work.run(tensor, whole, arrays, random);
  if (left == 0) return;
  const Tail rest(advanced(arrays, whole), left, multiple);
  RandomNumbers of_rest;
  for (int role = 0; random && role < kRoles; ++role)
    if (random->of[role]) of_rest.of[role] = random->of[role] + whole;
  work.run(tensor, multiple, rest.arrays(), random ? &of_rest : nullptr);
  rest.write();
}

// --- stochastic rounding

// The random numbers of neighbouring elements, for the arrays that are rounded by them, and room for them.
class Numbers : public RandomNumbers {
 public:
  static constexpr int64_t kMost =
      1024;  // elements. With fewer, starting takes longer; more do not stay in the cache

  // place: of the first element in the random stream.
  Numbers(const UpdateArrays& arrays, const Rounding& rounding, uint64_t place, int64_t n) {
    for (int role = 0, count = 0; role < kRoles; ++role)
      if (rounding.is_random[role] && arrays.of[role].data && is_half(arrays.of[role].type))
        of[role] = kernels<float>().rounding_numbers(n, rounding.key, kRoundingDigits[role], rounding.offset + place,
                                                     room_[count++]);
  }
  Numbers(const Numbers&) = delete;

 private:
  alignas(kLineBytes) uint16_t room_[kMostRandom][kMost + kMostExtraNumbers];
};

// Fetches arrays into the cache while numbers are made.
void fetch(const UpdateArrays& arrays, int64_t n) {
  for (const auto& [data, type] : arrays.of)
    for (const char* line = data; line && line < data + n * bytes_of(type); line += kLineBytes)
      __builtin_prefetch(line, 1);
}

// place: of the first element in the tensor's C order.
void run_randomly(const Tensor& tensor, const UpdateArrays& arrays, int64_t place, int64_t n,
                  const Rounding& rounding, const PieceWork& work) {
  constexpr int64_t kFetched = 256;  // elements; after them the processor sees what comes
  for (int64_t at = 0; at < n; at += Numbers::kMost) {
    const int64_t count = std::min(Numbers::kMost, n - at);
    const UpdateArrays part = advanced(arrays, at);
    fetch(part, std::min(kFetched, count));
    const Numbers numbers(part, rounding, tensor.in_stream + place + at, count);
    run_in_multiples(tensor, part, &numbers, count, work);
  }
}

void run_tile(const Tensor& tensor, int64_t index, const Rounding& rounding, const PieceWork& work) {
  const Tiles& tiles = *tensor.tiles;
  const Tiles::Tile tile = tiles[index];
  const UpdateArrays arrays = tensor.from(tile.at, tile.at);
  if (tiles.place_step() == 1) return run_randomly(tensor, arrays, tile.place, tile.length, rounding, work);
  const auto run = [&](int64_t i) {
    return advanced(arrays, i * tiles.memory_step());
  };
  for (int64_t i = 0; i < tile.runs; ++i) fetch(run(i), tile.length);
  constexpr int64_t kSide = Tiles::kSide;
  uint16_t in_runs[kRoles][kSide * kSide + kMostExtraNumbers];  // kernels may read more than a run
  for (int64_t i = 0; i < tile.length; ++i) {
    const uint64_t place = tensor.in_stream + tile.place + i * tiles.place_step();
    const Numbers across(arrays, rounding, place, tile.runs);
    for (int role = 0; role < kRoles; ++role)
      for (int64_t k = 0; k < tile.runs && across.of[role]; ++k) in_runs[role][k * kSide + i] = across.of[role][k];
  }
  for (int64_t i = 0; i < tile.runs; ++i) {
    RandomNumbers of_run;
    for (int role = 0; role < kRoles; ++role)
      if (rounding.is_random[role] && is_half(arrays.of[role].type)) of_run.of[role] = in_runs[role] + i * kSide;
    run_in_multiples(tensor, run(i), &of_run, tile.length, work);
  }
}

// The elements begin, ..., end - 1 of those that are updated.
void run_part(const Tensor& tensor, int64_t begin, int64_t end, const Rounding& rounding, const PieceWork& work) {
  if (tensor.tiles) {
    for (int64_t tile = begin / Tiles::kMost; tile < end / Tiles::kMost; ++tile)
      run_tile(tensor, tile, rounding, work);
    return;
  }
  while (begin < end) {
    int64_t at = begin, stop = end;
    if (tensor.rows) {
      const int64_t row = begin / tensor.row;
      stop = std::min(end, (row + 1) * tensor.row);
      at += (tensor.rows[row] - row) * tensor.row;
    }
    const UpdateArrays arrays = tensor.from(at, begin);
    if (tensor.is_random)
      run_randomly(tensor, arrays, at, stop - begin, rounding, work);
    else
      run_in_multiples(tensor, arrays, nullptr, stop - begin, work);
    begin = stop;
  }
}

}  // namespace

UpdateArrays Tensor::from(int64_t at, int64_t grad_at) const {
  UpdateArrays part = advanced(arrays, at);
  part.of[kGrad].data = arrays[kGrad].data + grad_at * bytes_of(arrays[kGrad].type);
  return part;
}

bool Rounding::is_any() const {
  return std::any_of(std::begin(is_random), std::end(is_random), [](bool random) { return random; });
}

// --- arguments

namespace {

// "nearest", "stochastic", or a dict with one of them for some arrays.
void take_rounding(Arguments& a, const std::vector<NamedRole>& names, bool (&is_random)[kRoles]) {
  constexpr std::string_view kStochastic = "stochastic";
  PyObject* const argument = a.object();
  const auto read = [&](PyObject* text) {
    Arguments one(&text, 1);
    const std::string_view way = one.text();
    a.require(way == "nearest" || way == kStochastic);
    return way == kStochastic;
  };
  if (!PyDict_CheckExact(argument)) {
    const bool random = read(argument);
    for (const auto& [name, role] : names) is_random[role] = random;
    return;
  }
  PyObject *key, *value;
  for (Py_ssize_t at = 0; PyDict_Next(argument, &at, &key, &value);) {
    Arguments one(&key, 1);
    const std::string_view text = one.text();
    const auto found =
        std::find_if(names.begin(), names.end(), [&](const NamedRole& named) { return named.first == text; });
    a.require(found != names.end());
    if (found != names.end()) is_random[found->second] = read(value);
  }
}

}  // namespace

UpdateOptions Model::take_options(Arguments& a, bool maximize, std::initializer_list<NamedRole> states) {
  UpdateOptions options = {.maximize = maximize, .grad_scale = a.number(), .skip_nonfinite = a.flag()};
  take_optional(a, kEma);
  options.ema_decay = a.number(0, 1);
  take_optional(a, kParamOut);
  PyObject* const rows = a.object();
  rows_object_ = rows == Py_None ? nullptr : rows;
  std::vector<NamedRole> names = {{"param", kParam}, {"ema", kEma}, {"param_out", kParamOut}};
  names.insert(names.end(), states);
  Rounding& rounding = options.rounding;
  take_rounding(a, names, rounding.is_random);
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
  if (!a.good_so_far()) return;
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
  for (Py_ssize_t i = 0; i < count && a.good_so_far(); ++i) {
    const auto item = [i](const Reference& list, PyObject* object) {
      return list ? PyTuple_GET_ITEM(list.get(), i) : object;
    };
    PyObject* objects[kRoles];
    for (int role = 0; role < kRoles; ++role) objects[role] = item(lists_[role], objects_[role]);
    PyObject* const rows = item(rows_list_, rows_object_);
    add_tensor(a, objects, rows == Py_None ? nullptr : rows, options.rounding);
    a.require(tensors_.back().is_double || options.grad_scale <= std::numeric_limits<float>::max());
  }
  a.require(options.rounding.offset <= uint64_t{0} - std::max<uint64_t>(1, in_stream_));
  a.require(are_disjoint());
}

void Model::add_tensor(Arguments& a, PyObject* const* objects, PyObject* rows, const Rounding& rounding) {
  const Array param = a.dense_of(objects[kParam], true);
  Tensor tensor = {.size = param.size, .whole = param.size, .in_stream = in_stream_};
  tensor.is_double = param.type == Type::float64;
  if (rows && param) read_rows(a, rows, param, tensor);
  for (int role = 0; role < kRoles; ++role) {
    if (!objects[role]) continue;
    const Array array = role == kParam ? param : a.dense_of(objects[role], role != kGrad);
    const bool laid_out =
        role == kGrad && rows ? are_rows(array, param, rows_.back().size()) : same_layout(array, param);
    a.require(array && fits(role, array.type, param.type) && laid_out);
    tensor.arrays.of[role] = {array.as<char>(), array.type};
    tensor.is_random |= rounding.is_random[role] && is_half(array.type);
    const int64_t bytes = tensor.size * bytes_of(array.type);
    bytes_ += bytes * (role == kGrad || role == kParamOut ? 1 : 2);  // others are read and written
    if (role == kGrad) grad_bytes_ += bytes;
  }
  tensor.precision = precision_of(tensor.arrays, tensor.is_double);
  if (tensor.is_random && !param.in_order && param.size > 0) tensor.tiles = &tiles_.emplace_back(param);
  tensor.places = tensor.tiles ? tensor.tiles->count() * Tiles::kMost : tensor.size;
  tensor.place = rounded_up(places_, tensor.tiles ? Tiles::kMost : kAlignment);
  places_ = tensor.place + tensor.places;
  in_stream_ += param.size;
  tensors_.push_back(tensor);
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
  Span *const begin = many.empty() ? few : many.data(), *end = begin;
  // Arrays of one role were often made one after the other, so the spans are runs in order, which a stable sort
  // merges without many branches that go either way.
  for (int role = 0; role < kRoles; ++role)
    for (const Tensor& tensor : tensors_) {
      const auto [data, type] = tensor.arrays.of[role];
      const int64_t size = role == kGrad ? tensor.size : tensor.whole;
      if (data && size > 0) *end++ = {data, data + size * bytes_of(type), role != kGrad};
    }
  if (many.empty())
    std::sort(begin, end);
  else
    std::stable_sort(begin, end);
  return no_written_span_overlaps(begin, end);
}

// --- the work

// Calls run(tensor, begin, end) for parts of all tensors, on as many threads as are useful. bytes: moved by all.
template <typename Run>
void Model::each_part(int64_t bytes, Run run) const {
  parallel_blocks(places_, update_block(bytes), bytes, [&](int64_t begin, int64_t end) {
    const auto before = [](int64_t place, const Tensor& tensor) {
      return place < tensor.place;
    };
    auto tensor = std::upper_bound(tensors_.begin(), tensors_.end(), begin, before) - 1;
    for (; tensor != tensors_.end() && tensor->place < end; ++tensor) {
      const int64_t from = std::max<int64_t>(begin - tensor->place, 0);
      const int64_t to = std::min(end - tensor->place, tensor->places);
      if (from < to) run(*tensor, from, to);
    }
  });
}

bool Model::update(const UpdateOptions& options, const PieceWork& work) const {
  const ReleasedGil released;
  if (options.skip_nonfinite && !all_finite(options.grad_scale)) return false;
  each_part(bytes_, [&](const Tensor& tensor, int64_t begin, int64_t end) {
    run_part(tensor, begin, end, options.rounding, work);
  });
  return true;
}

bool Model::all_finite(double scale) const {
  struct Work final : PieceWork {
    explicit Work(double scale) : scale(scale) {}
    void run(const Tensor& tensor, int64_t n, const UpdateArrays& arrays, const RandomNumbers*) const override {
      const bool good = tensor.is_double ? kernels<double>().all_finite(n, arrays[kGrad], scale)
                                         : kernels<float>().all_finite(n, arrays[kGrad], static_cast<float>(scale));
      if (!good) finite.store(false, std::memory_order_relaxed);
    }
    bool good() const { return finite.load(std::memory_order_relaxed); }

    const double scale;
    mutable std::atomic<bool> finite = true;
  };
  const Work work(scale);
  each_part(grad_bytes_, [&](const Tensor& tensor, int64_t begin, int64_t end) {
    end = std::min(end, tensor.size);  // tiles have more places
    if (begin >= end || !work.good()) return;
    UpdateArrays grad_alone;
    grad_alone.of[kGrad] = tensor.arrays[kGrad];
    run_in_multiples(tensor, advanced(grad_alone, begin), nullptr, end - begin, work);
  });
  return work.good();
}

}  // namespace pyreg
