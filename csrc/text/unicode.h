// The running interpreter's own character tables, so that the core agrees with str on every
// Python version. They are constant data: calling these needs no GIL.
#pragma once

#include <Python.h>

namespace flipfast {

inline bool is_word(Py_UCS4 c) { return Py_UNICODE_ISALNUM(c); }  // `_` is deleted earlier
inline bool is_space(Py_UCS4 c) { return Py_UNICODE_ISSPACE(c); }

// str.lower() of one character for which has_contextual_lower() is false.
inline Py_UCS4 lower(Py_UCS4 c) { return Py_UNICODE_TOLOWER(c); }

// True if lower-casing depends on the neighbors (capital sigma) or yields two characters (capital I
// with a dot above): only str.lower() itself gets those right.
inline bool has_contextual_lower(Py_UCS4 c) { return (c == 0x3A3) | (c == 0x130); }

}  // namespace flipfast
