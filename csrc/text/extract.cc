#include "text/extract.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "text/unicode.h"

namespace flipfast {
namespace {

constexpr std::string_view kThinkTag = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kFenceTag = "```json";
constexpr size_t kBackticks = 3;
constexpr size_t kHexDigits = 4;
constexpr Py_UCS4 kBroken = 0xFFFD;
constexpr Py_UCS4 kLeastCoded[] = {0, 0x80, 0x800, 0x10000};  // by bytes after the first
constexpr std::string_view kShortEscapes = "\"\\/bfnrt";
constexpr size_t kLongestKey = 60;  // as in NEXT_KEY of flipfast/parsing/strings.py

bool is_json_space(unsigned char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool is_hex_digit(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool starts_with(std::string_view text, std::string_view start) {
  return text.compare(0, start.size(), start) == 0;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Py_UCS4 read_escape(const std::string& raw, size_t* at) {
  const char kind = raw[(*at)++];
  if (kind == 'u') {
    const std::string digits = raw.substr(*at, kHexDigits);
    *at += kHexDigits;
    return static_cast<Py_UCS4>(std::stoul(digits, nullptr, 16));
  }
  return kind == '"' || kind == '\\' || kind == '/' ? kind : ' ';
}

// Reads one character of a valid JSON string's contents; U+FFFD for a broken one. The halves of an
// escaped surrogate pair are read one at a time.
Py_UCS4 read_character(const std::string& raw, size_t* at) {
  const unsigned char first = raw[(*at)++];
  if (first == '\\') return read_escape(raw, at);
  if (first < 0x80) return first;
  if (first < 0xC2 || first > 0xF4) return kBroken;
  const int n_more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  Py_UCS4 c = first & (0x3F >> n_more);
  for (int i = 0; i < n_more; ++i) {
    if (*at == raw.size() || (raw[*at] & 0xC0) != 0x80) return kBroken;
    c = c << 6 | (raw[(*at)++] & 0x3F);
  }
  return c >= kLeastCoded[n_more] && c <= 0x10FFFF ? c : kBroken;
}

bool is_enclosed(const std::vector<Py_UCS4>& text, Py_UCS4 open, Py_UCS4 close) {
  if (text.size() < 2 || text.front() != open || text.back() != close) return false;
  return std::none_of(text.begin() + 1, text.end() - 1,
                      [&](Py_UCS4 c) { return c == open || c == close; });
}

// Whether a value has no letter or digit, or is entirely enclosed in <> or [].
bool only_shows_the_format(const std::string& raw) {
  std::vector<Py_UCS4> text;
  for (size_t at = 0; at < raw.size();) {
    const Py_UCS4 c = read_character(raw, &at);
    if (!text.empty() || !is_space(c)) text.push_back(c);
  }
  while (!text.empty() && is_space(text.back())) text.pop_back();
  return std::none_of(text.begin(), text.end(), is_word) || is_enclosed(text, '<', '>') ||
         is_enclosed(text, '[', ']');
}

}  // namespace

bool spells_inferred_instruction(const std::string& key) {
  std::string letters;
  for (const char c : key) {
    const char lowered = ascii_lower(c);
    if (lowered >= 'a' && lowered <= 'z') letters.push_back(lowered);
  }
  if (!starts_with(letters, "inf")) return false;
  if (letters.find("instruc") != std::string::npos) return true;
  const bool ends_alike = ends_with(letters, "ion") || ends_with(letters, "ions");
  return ends_alike && letters.size() >= 14 && letters.size() <= 24;
}

void ObjectScanner::feed(const char* data, size_t size) {
  for (size_t i = 0; i < size && !closed() && !dead(); ++i, ++position_) {
    state_ = next(static_cast<unsigned char>(data[i]));
  }
}

ObjectScanner::State ObjectScanner::next(unsigned char byte) {
  switch (state_) {
    case State::kThinkTag:
      return in_tag(byte);
    case State::kThoughts:
      return in_thoughts(byte);
    case State::kFence:
      return in_fence(byte);
    case State::kKey:
      return in_key(byte);
    case State::kString:
    case State::kEscape:
    case State::kHex:
      return in_string(byte);
    default:
      break;
  }
  if (is_json_space(byte)) return state_;
  switch (state_) {
    case State::kBefore:
      return before(byte);
    case State::kFenced:
      return byte == '{' ? State::kMember : State::kDead;
    case State::kMember:
      key_.clear();
      return byte == '"' ? State::kKey : State::kDead;
    case State::kColon:
      return byte == ':' ? behind_key() : State::kDead;
    case State::kValue:
      if (byte != '"') return State::kDead;
      if (wanted_) start_ = position_ + 1;
      return State::kString;
    case State::kBehind:
      if (byte == ',') return State::kMember;
      return byte == '}' && end_ != kNone ? State::kClosed : State::kDead;
    default:
      return state_;
  }
}

ObjectScanner::State ObjectScanner::before(unsigned char byte) {
  n_matched_ = 1;
  if (byte == '<') return State::kThinkTag;
  if (byte == '`') return State::kFence;
  return byte == '{' ? State::kMember : State::kDead;
}

ObjectScanner::State ObjectScanner::in_tag(unsigned char byte) {
  if (byte != kThinkTag[n_matched_]) return State::kDead;
  if (++n_matched_ < kThinkTag.size()) return State::kThinkTag;
  n_matched_ = 0;
  return State::kThoughts;
}

ObjectScanner::State ObjectScanner::in_thoughts(unsigned char byte) {
  n_matched_ = byte == kThinkEnd[n_matched_] ? n_matched_ + 1 : byte == '<';
  return n_matched_ == kThinkEnd.size() ? State::kBefore : State::kThoughts;
}

ObjectScanner::State ObjectScanner::in_fence(unsigned char byte) {
  if (n_matched_ == kBackticks || n_matched_ == kFenceTag.size()) {
    if (byte == '{') return State::kMember;
    if (is_json_space(byte)) return State::kFenced;
  }
  const bool fits = n_matched_ < kFenceTag.size() && ascii_lower(byte) == kFenceTag[n_matched_];
  ++n_matched_;
  return fits ? State::kFence : State::kDead;
}

ObjectScanner::State ObjectScanner::in_key(unsigned char byte) {
  if (byte == '"') return key_.empty() ? State::kDead : State::kColon;
  const bool is_plain = byte >= ' ' && byte < 0x7F && byte != '\'' && byte != '\\';
  if (!is_plain || key_.size() == kLongestKey) return State::kDead;
  key_.push_back(static_cast<char>(byte));
  return State::kKey;
}

ObjectScanner::State ObjectScanner::behind_key() {
  if (end_ != kNone) return State::kClosed;
  wanted_ = spells_inferred_instruction(key_);
  return State::kValue;
}

ObjectScanner::State ObjectScanner::in_string(unsigned char byte) {
  if (state_ == State::kString && byte == '"') return behind_string();
  if (wanted_) value_.push_back(static_cast<char>(byte));
  if (state_ == State::kEscape) {
    n_matched_ = 0;
    if (byte == 'u') return State::kHex;
    return kShortEscapes.find(byte) != kShortEscapes.npos ? State::kString : State::kDead;
  }
  if (state_ == State::kHex) {
    if (!is_hex_digit(byte)) return State::kDead;
    return ++n_matched_ == kHexDigits ? State::kString : State::kHex;
  }
  if (byte == '\\') return State::kEscape;
  return byte < ' ' ? State::kDead : State::kString;
}

ObjectScanner::State ObjectScanner::behind_string() {
  if (!wanted_) return State::kBehind;
  end_ = position_;
  return only_shows_the_format(value_) ? State::kDead : State::kBehind;
}

}  // namespace flipfast
