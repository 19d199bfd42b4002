#include "text/word_hash.h"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>

namespace flipfast {
namespace {

constexpr uint64_t kBase = 0x9E3779B97F4A7C15u;
constexpr uint64_t kSeed = 0x243F6A8885A308D3u;

constexpr uint64_t splitmix64(uint64_t state) {
  uint64_t z = state + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

constexpr auto make_letters() {
  std::array<uint64_t, 256> letters{};
  for (size_t byte = 0; byte < 256; ++byte) letters[byte] = splitmix64(kSeed + byte);
  return letters;
}

constexpr auto kLetters = make_letters();  // the value of each byte

// Sorts the hashes and appends the distinct ones with their counts.
void append_distinct(std::vector<int64_t>* hashes, WordHashes* out) {
  std::sort(hashes->begin(), hashes->end());
  for (size_t i = 0; i < hashes->size(); ++i) {
    if (i == 0 || (*hashes)[i] != (*hashes)[i - 1]) {
      out->hashes.push_back((*hashes)[i]);
      out->copies.push_back(0);
    }
    ++out->copies.back();
  }
}

int32_t checked(size_t n) {
  if (n > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::length_error(std::to_string(n) + " words: pass fewer texts at a time");
  }
  return static_cast<int32_t>(n);
}

}  // namespace

int64_t hash_word(const char* data, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) {
    value = value * kBase + kLetters[static_cast<uint8_t>(data[i])];
  }
  return static_cast<int64_t>(value);
}

WordHashes word_hashes(const std::vector<Text>& texts) {
  Normalizer normalizer;
  std::vector<int64_t> hashes;
  WordHashes out;
  out.offsets.push_back(0);
  for (const Text& text : texts) {
    hashes.clear();
    for (const Word& word : normalizer.run(text)) hashes.push_back(hash_word(word.data, word.size));
    out.n_words.push_back(checked(hashes.size()));
    append_distinct(&hashes, &out);
    out.offsets.push_back(checked(out.hashes.size()));
  }
  return out;
}

}  // namespace flipfast
