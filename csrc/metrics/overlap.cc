#include "metrics/overlap.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <thread>

namespace flipfast {
namespace {

constexpr size_t kRowsPerGrab = 16;               // rows a thread takes at a time
constexpr size_t kCodePointsPerThread = 1 << 18;  // least work that is worth another thread

// How often each word of one text occurs: an open-addressing table, reused from text to text.
class WordCounts {
 public:
  void reset(const Words& words) {
    size_t slots = 16;
    while (slots < 2 * words.size) slots *= 2;
    slots_.assign(slots, Slot{nullptr, 0});
    filter_.fill(0);
    for (const Word& word : words) {
      Slot& slot = find(word);
      slot.word = &word;
      ++slot.count;
      filter_[word.hash >> 58] |= bit(word);
    }
  }

  // False only if the text lacks the word, which rejects most words of the other text.
  bool may_hold(const Word& word) const { return filter_[word.hash >> 58] & bit(word); }

  // Removes one occurrence of the word; false if none is left.
  bool take(const Word& word) {
    Slot& slot = find(word);
    const bool is_left = slot.count != 0;
    slot.count -= is_left;
    return is_left;
  }

 private:
  struct Slot {
    const Word* word;
    size_t count;
  };

  static uint64_t bit(const Word& word) { return uint64_t{1} << ((word.hash >> 52) & 63); }

  // The word's slot, or the free slot where it belongs.
  Slot& find(const Word& word) {
    const size_t mask = slots_.size() - 1;
    size_t i = word.hash & mask;
    while (slots_[i].word != nullptr && !(*slots_[i].word == word)) i = (i + 1) & mask;
    return slots_[i];
  }

  std::vector<Slot> slots_;
  std::array<uint64_t, 64> filter_;  // one bit for each word, by its hash
};

class Scorer {
 public:
  Score operator()(const Pair& pair) {
    const Words predicted = prediction_.run(pair.prediction);
    const Words referred = reference_.run(pair.reference);
    const size_t same = predicted.size < referred.size ? overlap(predicted, referred)
                                                       : overlap(referred, predicted);
    if (same == 0) return {0.0, 0.0, 0.0};
    const double precision = static_cast<double>(same) / static_cast<double>(predicted.size);
    const double recall = static_cast<double>(same) / static_cast<double>(referred.size);
    return {(2 * precision * recall) / (precision + recall), precision, recall};
  }

 private:
  // The size of the multiset intersection.
  size_t overlap(const Words& smaller, const Words& larger) {
    counts_.reset(smaller);
    if (candidates_.size() < larger.size) candidates_.resize(larger.size);
    size_t n = 0;
    for (const Word& word : larger) {  // a branch-free loop first, then a short one
      candidates_[n] = &word;
      n += counts_.may_hold(word);
    }
    size_t same = 0;
    for (size_t i = 0; i < n; ++i) same += counts_.take(*candidates_[i]);
    return same;
  }

  Normalizer prediction_, reference_;
  WordCounts counts_;
  std::vector<const Word*> candidates_;
};

size_t pick_threads(const std::vector<Pair>& pairs, size_t asked) {
  const size_t grabs = (pairs.size() + kRowsPerGrab - 1) / kRowsPerGrab;
  if (asked != 0) return std::min(asked, grabs);
  size_t code_points = 0;
  for (const Pair& pair : pairs) code_points += pair.prediction.length + pair.reference.length;
  const size_t worthwhile = std::min(grabs, 1 + code_points / kCodePointsPerThread);
  return std::min<size_t>(worthwhile, std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

void overlap_f1(const std::vector<Pair>& pairs, size_t threads, Score* scores) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    Scorer scorer;
    for (size_t begin; (begin = next.fetch_add(kRowsPerGrab)) < pairs.size();) {
      const size_t end = std::min(begin + kRowsPerGrab, pairs.size());
      for (size_t row = begin; row < end; ++row) scores[row] = scorer(pairs[row]);
    }
  };
  std::vector<std::future<void>> helpers;  // futures propagate exceptions and join
  for (size_t n = pick_threads(pairs, threads); helpers.size() + 1 < n;) {
    helpers.push_back(std::async(std::launch::async, work));
  }
  work();
  for (std::future<void>& helper : helpers) helper.get();
}

}  // namespace flipfast
