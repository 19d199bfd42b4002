#include "draft/ngram.h"

#include <algorithm>

namespace flipfast {
namespace {

constexpr int kTableBits = 16;
constexpr uint16_t kMaxTotal = 1024;  // then old votes are halved, so that the majority can change

// Extends a context's hash by one token; contexts grow from the latest token to the earliest.
uint64_t grown(uint64_t hash, int32_t token) {
  hash = (hash ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

size_t slot_of(uint64_t hash) { return static_cast<size_t>(hash >> (64 - kTableBits)); }

uint32_t check_of(uint64_t hash) { return static_cast<uint32_t>(hash); }

}  // namespace

NgramModel::NgramModel() {
  for (auto& table : tables_) table.resize(size_t{1} << kTableBits);
}

void NgramModel::learn(const std::vector<int32_t>& tokens) {
  for (size_t i = 1; i < tokens.size(); ++i) {
    uint64_t hash = 0;
    for (size_t m = 0; m < std::min(kMaxContext, i); ++m) {
      hash = grown(hash, tokens[i - 1 - m]);
      vote(&tables_[m][slot_of(hash)], check_of(hash), tokens[i]);
    }
  }
}

void NgramModel::vote(Entry* entry, uint32_t check, int32_t token) {
  if (entry->total > 0 && entry->check != check) {
    // Two contexts share the slot: the one seen more often keeps it.
    --entry->total;
    if (--entry->votes > 0) return;
    entry->total = 0;
  }
  if (entry->total == kMaxTotal) {
    entry->total /= 2;
    entry->votes = std::max(1, entry->votes / 2);
  }
  ++entry->total;
  if (entry->total > 1 && entry->token == token) {
    ++entry->votes;
  } else if (entry->total == 1 || --entry->votes == 0) {
    entry->check = check;
    entry->token = token;
    entry->votes = 1;
  }
}

Prediction NgramModel::predict(const std::vector<int32_t>& tail) const {
  Prediction found{0, 0, 0};
  uint64_t hash = 0;
  for (size_t m = 0; m < std::min(kMaxContext, tail.size()); ++m) {
    hash = grown(hash, tail[tail.size() - 1 - m]);
    const Entry& entry = tables_[m][slot_of(hash)];
    if (entry.total == 0 || entry.check != check_of(hash)) continue;
    const size_t evidence = entry.votes == entry.total ? std::min<size_t>(entry.votes, 3) - 1
                                                       : 3 + size_t{4} * entry.votes / entry.total;
    found = {entry.token, m + 1, evidence};
  }
  return found;
}

}  // namespace flipfast
