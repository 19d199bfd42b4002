// Splits text into words; equals flipfast/metrics/word_f1_py.py for every possible Python string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace flipfast {

// The code points of a Python string, borrowed: `length` items of `width` bytes (1, 2 or 4) each.
struct Text {
  const void* data;
  size_t length;
  int width;
  bool is_ascii;
};

// One word: `size` bytes of UTF-8 (lone surrogates encoded like any other code point), borrowed
// from the Normalizer that made it. Words are equal if `size` and all bytes are equal.
struct Word {
  const char* data;
  size_t size;
  uint64_t low;  // the first 8 bytes, zero past the end: most words need no further comparison
  uint64_t hash;
};

inline bool operator==(const Word& a, const Word& b) {
  return a.low == b.low && a.size == b.size &&
         (a.size <= sizeof a.low || std::memcmp(a.data, b.data, a.size) == 0);
}

// The words of a text in order, borrowed like each word.
struct Words {
  const Word* data;
  size_t size;

  const Word* begin() const { return data; }
  const Word* end() const { return data + size; }
};

// True if the text must be replaced by its str.lower() before it is normalized.
bool needs_python_lower(const Text& text);

// Splits texts into words. One object serves many texts and reuses its memory.
//
// The loops over bytes and over words avoid branches that depend on the letters: such a branch is
// mispredicted every few words, which would cost more than all the rest of the work.
class Normalizer {
 public:
  // The words of `text` in order, valid until the next call.
  Words run(const Text& text);

 private:
  void encode(const Text& text);
  template <typename Char>
  void encode_ascii(const Char* text, size_t length);
  template <typename Char>
  void encode_unicode(const Char* text, size_t length);
  void append(uint32_t code_point);

  size_t find_runs();
  size_t cut(size_t n_runs);
  size_t move_run(size_t begin, size_t end, size_t to);
  Word* split_at_marks(size_t begin, size_t end, Word* words);

  std::vector<char> bytes_;     // the text lower-cased, as UTF-8
  std::vector<uint8_t> kinds_;  // the kind of each byte
  size_t size_ = 0;             // bytes in use
  bool has_marks_ = false;      // whether any byte is a mark, see normalize.cc
  std::vector<size_t> edges_;   // begin and end of each run of kept bytes
  std::vector<Word> words_;
};

}  // namespace flipfast
