// Stands in for CPython's header: what csrc/text/unicode.h takes from it, for the characters that
// the tests have. Their properties come from Python, see make_cases.py.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

using Py_UCS1 = uint8_t;
using Py_UCS2 = uint16_t;
using Py_UCS4 = uint32_t;

namespace flipfast::test {

struct Character {
  Py_UCS4 code;
  bool is_alnum, is_space;
  Py_UCS4 lower;
};

#include "../cases/characters.inc"

inline const Character& look_up(Py_UCS4 code) {
  for (const Character& c : kCharacters) {
    if (c.code == code) return c;
  }
  std::fprintf(stderr, "U+%04X is not among the characters of make_cases.py\n", unsigned{code});
  std::abort();
}

}  // namespace flipfast::test

inline bool Py_UNICODE_ISALNUM(Py_UCS4 c) { return flipfast::test::look_up(c).is_alnum; }
inline bool Py_UNICODE_ISSPACE(Py_UCS4 c) { return flipfast::test::look_up(c).is_space; }
inline Py_UCS4 Py_UNICODE_TOLOWER(Py_UCS4 c) { return flipfast::test::look_up(c).lower; }
