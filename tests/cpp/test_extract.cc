// Where the instruction of a growing output lies and when it is closed.
#include <string_view>
#include <vector>

#include "check.h"
#include "text/extract.h"

namespace flipfast::test {
namespace {

// An output that json.loads reads, closed by its last byte, and where the value's inside lies.
struct OutputCase {
  std::string_view output;
  size_t start, end;
};

using namespace std::string_view_literals;
#include "cases/outputs.inc"

#define BEGINNING R"({"REASONING": "r", "INFERRED INSTRUCTION": "What is x?")"

constexpr std::string_view kDead[] = {
    "Sure! " BEGINNING "}",
    "[" BEGINNING "}",
    "{}",
    "``" BEGINNING "}",
    "```jsonc\n" BEGINNING "}",
    "<think>r</think>\n\x0b" BEGINNING "}",
    BEGINNING ",}",
    BEGINNING ", \"\":",
    BEGINNING ", \"\xc3\xa9\":",
    BEGINNING " it said}",
    R"({"instruction": "What is x?"})",
    R"({"INFERRED INSTRUCTION": null})",
    R"({"INFERRED INSTRUCTION": "\What"})",
    R"({"INFERRED INSTRUCTION": "\u12g4"})",
    "{\"INFERRED INSTRUCTION\": \"\n\"}",
    R"({"INFERRED INSTRUCTION": "..."})",
    R"({"INFERRED INSTRUCTION": "\u2026\n"})",
    "{\"INFERRED INSTRUCTION\": \"\xe2\x80\xa6\"}",
    "{\"INFERRED INSTRUCTION\": \"\xff\"}",
    R"({"INFERRED INSTRUCTION": " <the instruction>"})",
    R"({"INFERRED INSTRUCTION": "[x y] "})",
};

constexpr std::string_view kOpen[] = {
    "", "\n", "<think>" BEGINNING "}", "```json", BEGINNING, BEGINNING ",", BEGINNING ", \"NOTE\"",
};

void check_outputs() {
  for (const OutputCase& c : kOutputs) {
    subject = "output " + std::to_string(&c - kOutputs);
    ObjectScanner whole, pieces;
    whole.feed(c.output.data(), c.output.size());
    CHECK(whole.closed() && whole.start() == c.start && whole.end() == c.end);
    for (const char& byte : c.output) {
      CHECK(!pieces.closed() && !pieces.dead());
      pieces.feed(&byte, 1);
    }
    CHECK(pieces.closed() && pieces.start() == c.start && pieces.end() == c.end);
  }
}

void check_others(const std::string_view* outputs, size_t n, bool dead) {
  for (size_t i = 0; i < n; ++i) {
    subject = outputs[i];
    ObjectScanner scanner;
    scanner.feed(outputs[i].data(), outputs[i].size());
    CHECK(scanner.dead() == dead && !scanner.closed());
  }
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  check_outputs();
  check_others(kDead, std::size(kDead), true);
  check_others(kOpen, std::size(kOpen), false);
  return report();
}
