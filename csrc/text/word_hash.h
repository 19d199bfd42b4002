// Hashes of a text's words, as defined in kernels/flipfast_kernels/word_hash.py: a polynomial
// modulo 2^64 over a word's UTF-8 bytes. The device composes the same hashes from tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "text/normalize.h"

namespace flipfast {

// The distinct words of texts, text by text, each text's in ascending order of the hash.
struct WordHashes {
  std::vector<int64_t> hashes;
  std::vector<int32_t> copies;   // how often the text holds the word
  std::vector<int32_t> offsets;  // where each text's words begin, then where the last one's end
  std::vector<int32_t> n_words;  // of each text, repetitions included
};

int64_t hash_word(const char* data, size_t size);

// Touches no Python object, so it runs without the GIL. Throws std::length_error if there are too
// many words to count in 32 bits.
WordHashes word_hashes(const std::vector<Text>& texts);

}  // namespace flipfast
