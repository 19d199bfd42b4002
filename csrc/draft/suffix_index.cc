#include "draft/suffix_index.h"

#include <algorithm>

namespace flipfast {
namespace {

constexpr int kMaxVisits = 64;  // positions visited per search

}  // namespace

void SuffixIndex::append(int32_t token) {
  tokens_.push_back(token);
  previous_.push_back(-1);
  // A position is worth finding only once a token that may be proposed follows it.
  if (tokens_.size() > 1 && token != kStart) chain(tokens_.size() - 2);
}

void SuffixIndex::chain(size_t position) {
  if (2 * (n_heads_ + 1) > heads_.size()) grow();
  Head& head = heads_[slot_of(tokens_[position])];
  if (head.position < 0) ++n_heads_;
  previous_[position] = head.position;
  head = {tokens_[position], static_cast<int32_t>(position)};
}

size_t SuffixIndex::slot_of(int32_t token) const {
  const size_t mask = heads_.size() - 1;
  size_t slot = (static_cast<uint64_t>(static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15u) >> 40;
  for (slot &= mask; heads_[slot].position >= 0 && heads_[slot].token != token;) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

void SuffixIndex::grow() {
  std::vector<Head> old(2 * heads_.size());
  old.swap(heads_);
  for (const Head& head : old) {
    if (head.position >= 0) heads_[slot_of(head.token)] = head;
  }
}

Match SuffixIndex::find(const std::vector<int32_t>& tail) const {
  Match best{0, 0};
  if (tail.empty()) return best;
  const size_t most = std::min(kMaxMatch, tail.size());
  const int32_t* const last = &tail.back();
  int32_t position = heads_[slot_of(*last)].position;
  for (int visit = 0; position >= 0 && visit < kMaxVisits && best.length < most; ++visit) {
    const size_t end = static_cast<size_t>(position);
    size_t length = 1;
    while (length < most && length <= end && tokens_[end - length] == *(last - length)) ++length;
    if (length > best.length) best = {length, end + 1};
    position = previous_[end];
  }
  return best;
}

}  // namespace flipfast
