// Finds an output's latest tokens in a token sequence, to propose what follows them there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace flipfast {

constexpr int32_t kStart = -1;   // marks the start of an output
constexpr size_t kMaxMatch = 8;  // maximum number of tokens compared

struct Match {
  size_t length;    // tokens that agree, at most kMaxMatch; 0: no match
  size_t position;  // of the token after them
};

// A growing token sequence. Positions of equal tokens are chained, latest first.
class SuffixIndex {
 public:
  SuffixIndex() : heads_(16) {}
  void append(int32_t token);

  // The longest match of the end of `tail`, the latest if tied. Only the latest positions of its
  // last token are visited, so that a search takes bounded time.
  Match find(const std::vector<int32_t>& tail) const;

  // Whether the token at a position may be proposed: it exists and is not the start of an output.
  bool proposes(size_t position) const {
    return position < tokens_.size() && tokens_[position] != kStart;
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  // The latest position of a token, in a table with open addressing.
  struct Head {
    int32_t token = 0;
    int32_t position = -1;  // -1: free
  };
  size_t slot_of(int32_t token) const;
  void chain(size_t position);
  void grow();

  std::vector<int32_t> tokens_;
  std::vector<int32_t> previous_;  // the previous position of the same token, -1: none
  std::vector<Head> heads_;        // its size is a power of two
  size_t n_heads_ = 0;
};

}  // namespace flipfast
