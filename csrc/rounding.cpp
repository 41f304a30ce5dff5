#include "rounding.h"

#include <algorithm>

namespace pyreg {

bool Rounding::is_any() const {
  return std::any_of(std::begin(is_random), std::end(is_random), [](bool random) { return random; });
}

void Rounding::take(Arguments& a, std::initializer_list<NamedRole> names) {
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

}  // namespace pyreg
