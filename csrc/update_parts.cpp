#include "update_parts.h"

#include <algorithm>
#include <cstring>

namespace pyreg {
namespace {

UpdateArrays advanced(UpdateArrays arrays, int64_t by) {
  for (auto& [data, type] : arrays.of)
    if (data) data += by * bytes_of(type);
  return arrays;
}

// Element `at` of each array and those after it, but element `grad_at` of the gradient.
UpdateArrays from(const Tensor& tensor, const Gradient& gradient, int64_t at, int64_t grad_at) {
  UpdateArrays arrays = advanced(tensor.arrays, at);
  const auto [data, type] = gradient.array;
  arrays.of[kGrad] = {data + grad_at * bytes_of(type), type};
  return arrays;
}

// The random numbers of neighbouring elements, for the arrays that are rounded by them, and room for them.
class Numbers : public RandomNumbers {
 public:
  // Elements. With fewer, starting takes longer; more do not stay in the cache.
  static constexpr int64_t kMost = 1024;

  // place: of the first element in the random stream.
  Numbers(const UpdateArrays& arrays, const Rounding& rounding, uint64_t place, int64_t n) {
    for (int role = 0, count = 0; role < kRoles; ++role)
      if (rounding.is_random[role] && is_half(arrays.of[role].type))
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
    for (const char* line = data - reinterpret_cast<uintptr_t>(data) % kLineBytes;
         data && line < data + n * bytes_of(type); line += kLineBytes)
      __builtin_prefetch(line, 1);
}

}  // namespace

void Rests::add(const Tensor& tensor, Precision precision, const UpdateArrays& arrays, const RandomNumbers* random,
                int64_t at, int64_t count) {
  uint64_t types = 0;
  for (int role = 0; role < kRoles; ++role) types |= static_cast<uint64_t>(arrays.of[role].type) << 8 * role;
  // Within a call, the types tell which arrays are random, and the precision.
  if (filled_ > 0 && (filled_ + count > multiple_ || types != types_)) finish();
  types_ = types;
  is_random_ = random != nullptr;
  is_double_ = tensor.is_double;
  precision_ = precision;
  multiple_ = tensor.multiple();
  Rest& rest = rest_[rests_++];
  rest.count = count;
  for (int role = 0; role < kRoles; ++role) {
    const auto [data, type] = arrays.of[role];
    if (!data) continue;
    const int64_t bytes = bytes_of(type);
    rest.data[role] = data + at * bytes;
    std::memcpy(bytes_[role] + filled_ * bytes, rest.data[role], count * bytes);
    if (random && random->of[role]) std::copy_n(random->of[role] + at, count, numbers_[role] + filled_);
    random_[role] = random && random->of[role];
  }
  filled_ += count;
}

void Rests::finish() {
  if (filled_ == 0) return;
  UpdateArrays copies;
  RandomNumbers random;
  for (int role = 0; role < kRoles; ++role) {
    const auto type = static_cast<Type>(types_ >> 8 * role & 0xff);
    if (type == Type::none) continue;
    const int64_t bytes = bytes_of(type);
    copies.of[role] = {bytes_[role], type};
    std::memset(bytes_[role] + filled_ * bytes, 0, (multiple_ - filled_) * bytes);
    if (!is_random_ || !random_[role]) continue;
    random.of[role] = numbers_[role];
    std::fill(numbers_[role] + filled_, numbers_[role] + multiple_, uint16_t{0});
  }
  work_.run(is_double_, precision_, multiple_, copies, is_random_ ? &random : nullptr);
  int64_t at = 0;
  for (int i = 0; i < rests_; at += rest_[i++].count)
    for (int role = 0; role < kRoles; ++role) {
      const auto [data, type] = copies.of[role];
      const int64_t bytes = bytes_of(type);
      if (data && role != kGrad) std::memcpy(rest_[i].data[role], data + at * bytes, rest_[i].count * bytes);
    }
  rests_ = 0;
  filled_ = 0;
}

void Parts::run_piece(const Tensor& tensor, Precision precision, const UpdateArrays& arrays,
                      const RandomNumbers* random, int64_t n) {
  const int64_t left = n % tensor.multiple(), whole = n - left;
  if (whole > 0) work_.run(tensor.is_double, precision, whole, arrays, random);
  if (left == 0) return;
  rests_.add(tensor, precision, arrays, random, whole, left);
}

// place: of the first element in the random stream.
void Parts::run_randomly(const Tensor& tensor, Precision precision, const UpdateArrays& arrays, uint64_t place,
                         int64_t n) {
  constexpr int64_t kFetched = 256;  // elements; after them the processor sees what comes
  for (int64_t at = 0; at < n; at += Numbers::kMost) {
    const int64_t count = std::min(Numbers::kMost, n - at);
    const UpdateArrays part = advanced(arrays, at);
    fetch(part, std::min(kFetched, count));
    const Numbers numbers(part, rounding_, place + at, count);
    run_piece(tensor, precision, part, &numbers, count);
  }
}

void Parts::run_tile(const Tensor& tensor, const Gradient& gradient, int64_t index) {
  const Tiles& tiles = *tensor.tiles;
  const Tiles::Tile tile = tiles[index];
  const UpdateArrays arrays = from(tensor, gradient, tile.at, tile.at);
  const uint64_t place = tensor.in_stream + tile.place;
  if (tiles.place_step() == 1) return run_randomly(tensor, gradient.precision, arrays, place, tile.length);
  const auto run = [&](int64_t i) {
    return advanced(arrays, i * tiles.memory_step());
  };
  for (int64_t i = 0; i < tile.runs; ++i) fetch(run(i), tile.length);
  // The numbers of a run are `step` apart. Those of several elements of all runs are made at a time, if few of them
  // lie between.
  uint16_t in_runs[kMostRandom][Tiles::kMost];
  const int64_t step = tiles.place_step();
  const int64_t at_once = step > 2 * tile.runs ? 1 : std::max<int64_t>(1, (Numbers::kMost - tile.runs) / step + 1);
  for (int64_t i = 0; i < tile.length; i += at_once) {
    const int64_t count = std::min(at_once, tile.length - i);
    const Numbers numbers(arrays, rounding_, place + i * step, (count - 1) * step + tile.runs);
    for (int role = 0, index = 0; role < kRoles; ++role) {
      if (!numbers.of[role]) continue;
      uint16_t* const to = in_runs[index++] + i;
      for (int64_t k = 0; k < count; ++k)
        for (int64_t run = 0; run < tile.runs; ++run) to[run * tile.length + k] = numbers.of[role][k * step + run];
    }
  }
  for (int64_t i = 0; i < tile.runs; ++i) {
    RandomNumbers of_run;
    for (int role = 0, index = 0; role < kRoles; ++role)
      if (rounding_.is_random[role] && is_half(arrays.of[role].type))
        of_run.of[role] = in_runs[index++] + i * tile.length;
    run_piece(tensor, gradient.precision, run(i), &of_run, tile.length);
  }
}

void Parts::run(const Tensor& tensor, const Gradient& gradient, int64_t begin, int64_t end) {
  if (tensor.tiles) {
    for (int64_t tile = begin / Tiles::kMost; tile < end / Tiles::kMost; ++tile) run_tile(tensor, gradient, tile);
    return;
  }
  while (begin < end) {
    int64_t at = begin, stop = end;
    if (tensor.rows) {
      const int64_t row = begin / tensor.row;
      stop = std::min(end, (row + 1) * tensor.row);
      at += (tensor.rows[row] - row) * tensor.row;
    }
    const UpdateArrays arrays = from(tensor, gradient, at, begin);
    if (tensor.is_random)
      run_randomly(tensor, gradient.precision, arrays, tensor.in_stream + at, stop - begin);
    else
      run_piece(tensor, gradient.precision, arrays, nullptr, stop - begin);
    begin = stop;
  }
}

void Parts::run_gradient(const Tensor& tensor, const Gradient& gradient, int64_t begin, int64_t end) {
  UpdateArrays alone;
  alone.of[kGrad] = gradient.array;
  run_piece(tensor, gradient.precision, advanced(alone, begin), nullptr, end - begin);
}

}  // namespace pyreg
