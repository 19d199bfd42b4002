// A failed CHECK is told with its place; main returns report().
#pragma once

#include <cstdio>
#include <string>

namespace flipfast::test {

inline long n_checks = 0;
inline long n_failures = 0;
inline std::string subject;  // what the next checks are about

inline void check(bool holds, const char* condition, const char* file, int line) {
  ++n_checks;
  if (holds || ++n_failures > 20) return;
  std::fprintf(stderr, "%s:%d: %s: not %s\n", file, line, subject.c_str(), condition);
}

inline int report() {
  std::printf("%ld checks, %ld failed\n", n_checks, n_failures);
  return n_checks > 0 && n_failures == 0 ? 0 : 1;
}

}  // namespace flipfast::test

#define CHECK(...) ::flipfast::test::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
