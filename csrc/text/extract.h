// Finds the inferred instruction in a model's output while the output is generated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace flipfast {

// Scans an output's bytes until its inferred instruction is definitely closed.
//
// It accepts only a clean leading object: white space, closed <think> blocks and one ``` or ```json
// fence, then `{` and pairs of strings, all valid for json.loads so far. The first value under a
// key that spells "inferred instruction" counts; other keys for an "instruction" do not. As small
// models forget to escape quotes, the quote that ends the value counts only once a `}`, or a comma
// with a whole next key and its colon, has followed. On anything else, or a value that only shows
// the format ("...", "<instruction>", nothing), the scanner gives up.
class ObjectScanner {
 public:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // Reads the next bytes; does nothing once the value is closed or the scanner has given up. The
  // result does not depend on how the output is split into pieces.
  void feed(const char* data, size_t size);

  bool closed() const { return state_ == State::kClosed; }
  bool dead() const { return state_ == State::kDead; }
  // Byte offsets in the output of the instruction's value, after its opening quote, and of the
  // quote that ends it; kNone if not read yet.
  size_t start() const { return start_; }
  size_t end() const { return end_; }

 private:
  enum class State : uint8_t {
    kBefore,    // before a think block, fence or object
    kThinkTag,  // inside "<think>"
    kThoughts,  // after it
    kFence,     // inside "```json"
    kFenced,    // after it
    kMember,    // before a key
    kKey,       // inside it
    kColon,     // after it
    kValue,     // before a string value
    kString,    // inside it
    kEscape,    // after its backslash
    kHex,       // among the digits of \uXXXX
    kBehind,    // after the string value
    kClosed,
    kDead,
  };

  State next(unsigned char byte);
  State before(unsigned char byte);
  State in_tag(unsigned char byte);
  State in_thoughts(unsigned char byte);
  State in_fence(unsigned char byte);
  State in_key(unsigned char byte);
  State behind_key();
  State in_string(unsigned char byte);
  State behind_string();

  State state_ = State::kBefore;
  size_t position_ = 0;   // of the byte being read
  size_t n_matched_ = 0;  // letters of a tag or a fence, digits of an escape
  bool wanted_ = false;   // whether the string is the instruction's value
  std::string key_;
  std::string value_;  // the wanted one, still escaped
  size_t start_ = kNone;
  size_t end_ = kNone;
};

// Whether an ASCII key spells "inferred instruction", misspellings included: see key_rank in
// flipfast/parsing/keys.py for the rule.
bool spells_inferred_instruction(const std::string& key);

}  // namespace flipfast
