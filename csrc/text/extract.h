// Finds the inferred instruction in a model's output while the output grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace flipfast {

// Follows an output's bytes up to where its inferred instruction is closed for good.
//
// It follows only a clean leading object: white space, closed <think> blocks and one ``` or ```json
// fence, then `{` and pairs of strings, all valid for json.loads so far. The first value under a
// key that spells "inferred instruction" counts, other keys for an "instruction" do not. As small
// models forget to escape quotes, the quote that ends the value counts only once a `}`, or a comma
// with a whole next key and its colon, has followed. Anything else, and a value that only shows the
// format ("...", "<instruction>", nothing), makes the scanner give up.
class ObjectScanner {
 public:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // Reads on, but nothing more once the value is closed or the scanner has given up. However the
  // output is cut into pieces, the result is the same.
  void feed(const char* data, size_t size);

  bool closed() const { return state_ == State::kClosed; }
  bool dead() const { return state_ == State::kDead; }
  // Where the instruction's value begins, behind its opening quote, and where the quote that ends
  // it stands: bytes of the output, kNone where they have not been read yet.
  size_t start() const { return start_; }
  size_t end() const { return end_; }

 private:
  enum class State : uint8_t {
    kBefore,    // in front of everything
    kThinkTag,  // inside "<think>"
    kThoughts,  // behind it
    kFence,     // inside "```json"
    kFenced,    // behind it
    kMember,    // in front of a key
    kKey,       // inside it
    kColon,     // behind it
    kValue,     // in front of a string
    kString,    // inside it
    kEscape,    // behind its backslash
    kHex,       // among the digits of \uXXXX
    kBehind,    // behind the string
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
  size_t position_ = 0;   // of the byte that is read
  size_t n_matched_ = 0;  // letters of a tag or a fence, digits of an escape
  bool wanted_ = false;   // whether the string is the instruction's value
  std::string key_;
  std::string value_;  // the wanted one, as it stands in the output
  size_t start_ = kNone;
  size_t end_ = kNone;
};

// Whether an ASCII key spells "inferred instruction", which a misspelling does, too: key_rank in
// flipfast/parsing/keys.py has the rule.
bool spells_inferred_instruction(const std::string& key);

}  // namespace flipfast
