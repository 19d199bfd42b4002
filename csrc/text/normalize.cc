#include "text/normalize.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "text/unicode.h"

namespace flipfast {
namespace {

// Kinds of bytes. ASCII punctuation, which is deleted, has none of these bits.
constexpr uint8_t kKept = 1;
constexpr uint8_t kSpace = 2;
constexpr uint8_t kMark = 4;  // kept, but not a word character: a word boundary for articles
constexpr uint64_t kEveryMark = 0x0101010101010101u * kMark;

constexpr size_t kWindow = 16;  // bytes of a word read at once, possibly past its end

constexpr bool in_range(uint8_t c, uint8_t first, uint8_t last) {
  return static_cast<uint8_t>(c - first) <= last - first;
}

constexpr uint8_t ascii_lower(uint8_t c) { return c + (in_range(c, 'A', 'Z') << 5); }

// Branch-free, so that loops over it vectorize.
constexpr uint8_t ascii_kind(uint8_t c) {
  const bool is_word = in_range(ascii_lower(c), 'a', 'z') | in_range(c, '0', '9');
  const bool is_space = (c == ' ') | in_range(c, '\t', '\r') | in_range(c, 0x1C, 0x1F);
  const bool is_mark = ((c < ' ') & !is_space) | (c == 0x7F);
  return is_word * kKept | is_space * kSpace | is_mark * (kMark | kKept);
}

uint8_t kind_of(Py_UCS4 c) {
  if (c < 128) return ascii_kind(static_cast<uint8_t>(c));
  if (is_word(c)) return kKept;
  return is_space(c) ? kSpace : kKept | kMark;
}

size_t put_utf8(Py_UCS4 c, char* out) {
  const auto tail = [](Py_UCS4 bits) { return static_cast<char>(0x80 | (bits & 0x3F)); };
  if (c < 0x80) {
    out[0] = static_cast<char>(c);
    return 1;
  }
  if (c < 0x800) {
    out[0] = static_cast<char>(0xC0 | (c >> 6));
    out[1] = tail(c);
    return 2;
  }
  if (c < 0x10000) {
    out[0] = static_cast<char>(0xE0 | (c >> 12));
    out[1] = tail(c >> 6);
    out[2] = tail(c);
    return 3;
  }
  out[0] = static_cast<char>(0xF0 | (c >> 18));
  out[1] = tail(c >> 12);
  out[2] = tail(c >> 6);
  out[3] = tail(c);
  return 4;
}

// Row n keeps the first n bytes of a window and zeros the others.
constexpr auto make_masks() {
  std::array<std::array<char, kWindow>, kWindow + 1> masks{};
  for (size_t n = 0; n <= kWindow; ++n) {
    for (size_t i = 0; i < n; ++i) masks[n][i] = '\xFF';
  }
  return masks;
}

constexpr auto kMasks = make_masks();

uint64_t load(const char* data) {
  uint64_t bytes;
  std::memcpy(&bytes, data, sizeof bytes);
  return bytes;
}

uint64_t mix(uint64_t hash, uint64_t bytes) {
  hash = (hash ^ bytes) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 32);
}

// The first 16 bytes of a word, zero past its end.
struct Window {
  uint64_t low, high;

  Window(const char* data, size_t size) {
    const char* const mask = kMasks[std::min(size, kWindow)].data();
    low = load(data) & load(mask);
    high = load(data + 8) & load(mask + 8);
  }

  uint64_t hash(uint64_t seed) const { return mix(mix(seed, low), high); }
};

uint64_t hash_rest(uint64_t hash, const char* data, size_t size) {
  for (size_t i = kWindow; i < size; i += kWindow) hash = Window(data + i, size - i).hash(hash);
  return hash;
}

// True for a, an, the. A run of word characters has no NUL, so the zero padding gives its length.
bool is_article(const Window& run) {
  return (run.low == load("a\0\0\0\0\0\0")) | (run.low == load("an\0\0\0\0\0")) |
         (run.low == load("the\0\0\0\0"));
}

// Writes a word without counting it; returns whether it is an article.
inline bool put_word(const char* data, size_t size, Word* word) {
  const Window window(data, size);
  word->data = data;
  word->size = size;
  word->low = window.low;
  word->hash = window.hash(size);
  if (size > kWindow) word->hash = hash_rest(word->hash, data, size);
  return is_article(window);
}

// Whether the gap between two runs has white space.
inline bool has_space(const uint8_t* begin, const uint8_t* end) {
  if ((*begin | end[-1]) & kSpace) return true;  // nearly always
  return std::find(begin, end, kSpace) != end;
}

// False if these kinds, of a word's bytes, have no mark; always true for long words.
inline bool may_hold_marks(const uint8_t* kinds, size_t size) {
  const Window window(reinterpret_cast<const char*>(kinds), size);
  return ((window.low | window.high) & kEveryMark) != 0 || size > kWindow;
}

template <typename Char>
bool any_contextual_lower(const Char* text, size_t length) {
  bool found = false;  // no early return, so that the loop vectorizes
  for (size_t i = 0; i < length; ++i) found |= has_contextual_lower(text[i]);
  return found;
}

}  // namespace

bool needs_python_lower(const Text& text) {
  switch (text.width) {
    case 1:
      return false;  // neither character is in Latin-1
    case 2:
      return any_contextual_lower(static_cast<const Py_UCS2*>(text.data), text.length);
    default:
      return any_contextual_lower(static_cast<const Py_UCS4*>(text.data), text.length);
  }
}

Words Normalizer::run(const Text& text) {
  encode(text);
  const size_t n_words = cut(find_runs());
  return {words_.data(), n_words};
}

void Normalizer::encode(const Text& text) {
  const size_t longest = text.is_ascii ? 1 : 4;  // bytes of a code point
  const size_t room = longest * text.length + kWindow;
  if (bytes_.size() < room) {
    bytes_.resize(room);
    kinds_.resize(room);
  }
  size_ = 0;
  has_marks_ = false;
  if (text.is_ascii) {
    encode_ascii(static_cast<const Py_UCS1*>(text.data), text.length);
  } else if (text.width == 1) {
    encode_unicode(static_cast<const Py_UCS1*>(text.data), text.length);
  } else if (text.width == 2) {
    encode_unicode(static_cast<const Py_UCS2*>(text.data), text.length);
  } else {
    encode_unicode(static_cast<const Py_UCS4*>(text.data), text.length);
  }
}

template <typename Char>
void Normalizer::encode_ascii(const Char* text, size_t length) {
  char* const bytes = bytes_.data() + size_;
  uint8_t* const kinds = kinds_.data() + size_;
  uint8_t all_kinds = 0;
  for (size_t i = 0; i < length; ++i) {
    const uint8_t c = static_cast<uint8_t>(text[i]);
    const uint8_t kind = ascii_kind(c);
    bytes[i] = static_cast<char>(ascii_lower(c));
    kinds[i] = kind;
    all_kinds |= kind;
  }
  size_ += length;
  has_marks_ |= (all_kinds & kMark) != 0;
}

template <typename Char>
void Normalizer::encode_unicode(const Char* text, size_t length) {
  const Char* const end = text + length;
  const auto is_not_ascii = [](Char c) { return c >= 128; };
  while (text < end) {
    const Char* const ascii_end = std::find_if(text, end, is_not_ascii);
    encode_ascii(text, static_cast<size_t>(ascii_end - text));
    for (text = ascii_end; text < end && is_not_ascii(*text); ++text) append(lower(*text));
  }
}

void Normalizer::append(uint32_t code_point) {
  const uint8_t kind = kind_of(code_point);
  const size_t n = put_utf8(code_point, &bytes_[size_]);
  std::fill_n(&kinds_[size_], n, kind);
  size_ += n;
  has_marks_ |= (kind & kMark) != 0;
}

// Writes where the runs of kept bytes begin and end; returns the number of runs. Branch-free: every
// position is written, but counted only where a run begins or ends.
size_t Normalizer::find_runs() {
  kinds_[size_] = kSpace;
  if (edges_.size() < size_ + 4) edges_.resize(size_ + 4);
  const uint8_t* const kinds = kinds_.data();
  size_t* const edges = edges_.data();
  size_t n_edges = 0;
  uint8_t previous = kSpace;
  for (size_t i = 0; i <= size_; ++i) {
    edges[n_edges] = i;
    n_edges += (kinds[i] ^ previous) & kKept;
    previous = kinds[i];
  }
  edges[n_edges] = edges[n_edges + 1] = size_ + 1;  // an empty run, after the white space
  return n_edges / 2;
}

// Joins the runs separated only by punctuation into words; returns the number of words.
size_t Normalizer::cut(size_t n_runs) {
  // A word takes at least one byte and one separator; one more may be written and discarded.
  const size_t most_words = has_marks_ ? size_ / 2 + 1 : n_runs;
  if (words_.size() < most_words) words_.resize(most_words);
  if (n_runs == 0) return 0;
  const bool has_marks = has_marks_;
  const uint8_t* const kinds = kinds_.data();
  const char* const bytes = bytes_.data();
  const size_t* edge = edges_.data();
  const size_t* const last_edge = edge + 2 * n_runs;
  Word* words = words_.data();
  size_t begin = edge[0], end = edge[1];
  for (edge += 2; edge <= last_edge; edge += 2) {
    if (!has_space(kinds + edge[-1], kinds + edge[0])) {
      end = move_run(edge[0], edge[1], end);
      continue;
    }
    if (has_marks && may_hold_marks(kinds + begin, end - begin)) {
      words = split_at_marks(begin, end, words);
    } else {
      words += !put_word(bytes + begin, end - begin, words);
    }
    begin = edge[0];
    end = edge[1];
  }
  return static_cast<size_t>(words - words_.data());
}

// Moves a run down to `to`, which is before it; returns its new end.
size_t Normalizer::move_run(size_t begin, size_t end, size_t to) {
  std::memmove(&bytes_[to], &bytes_[begin], end - begin);
  std::memmove(&kinds_[to], &kinds_[begin], end - begin);
  return to + (end - begin);
}

// Writes the words between the articles of a word; returns where the next word goes.
Word* Normalizer::split_at_marks(size_t begin, size_t end, Word* words) {
  const char* const bytes = bytes_.data();
  size_t run_begin = begin;
  for (size_t i = begin; i <= end; ++i) {
    if (i < end && !(kinds_[i] & kMark)) continue;
    if (is_article(Window(bytes + run_begin, i - run_begin))) {
      put_word(bytes + begin, run_begin - begin, words);
      words += begin < run_begin;
      begin = i;
    }
    run_begin = i + 1;
  }
  put_word(bytes + begin, end - begin, words);
  return words + (begin < end);
}

}  // namespace flipfast
