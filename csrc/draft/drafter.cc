#include "draft/drafter.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace flipfast {
namespace {

constexpr double kMemory = 0.995;  // decay of older guesses with each new one

void check_tokens(const std::vector<int32_t>& tokens, int32_t lowest) {
  for (const int32_t token : tokens) {
    if (token < lowest) {
      throw std::invalid_argument("token " + std::to_string(token) + " is below " +
                                  std::to_string(lowest));
    }
  }
}

void check_lengths(const char* name, size_t n, size_t n_wanted) {
  if (n != n_wanted) {
    throw std::invalid_argument(std::to_string(n) + " " + name + " where " +
                                std::to_string(n_wanted) + " are needed, one a handle");
  }
}

}  // namespace

void Drafter::Rate::learn(bool was_right) {
  right = kMemory * right + (was_right ? 1.0 : 0.0);
  tried = kMemory * tried + 1.0;
}

Drafter::Drafter(int max_draft) : max_draft_(max_draft) {
  if (max_draft < 1) {
    throw std::invalid_argument("max_draft must be at least 1, not " + std::to_string(max_draft));
  }
}

int64_t Drafter::open(const std::vector<std::vector<int32_t>>& sources,
                      const std::vector<int32_t>& start) {
  for (const auto& source : sources) check_tokens(source, kStart);
  check_tokens(start, 0);
  auto output = std::make_unique<Output>();
  output->sources.resize(sources.size() + 1);
  for (size_t i = 0; i < sources.size(); ++i) {
    for (const int32_t token : sources[i]) output->sources[i].append(token);
  }
  output->sources.back().append(kStart);
  for (const int32_t token : start) output->sources.back().append(token);
  const std::lock_guard<std::mutex> lock(mutex_);
  outputs_.emplace(next_handle_, std::move(output));
  return next_handle_++;
}

void Drafter::extend(const std::vector<int64_t>& handles,
                     const std::vector<std::vector<int32_t>>& tokens) {
  check_lengths("lists of tokens", tokens.size(), handles.size());
  for (const auto& added : tokens) check_tokens(added, 0);
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<Output*> outputs = find(handles);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (tokens[i].empty()) continue;  // the last proposal may still be tried
    learn(outputs[i], tokens[i]);
    for (const int32_t token : tokens[i]) outputs[i]->sources.back().append(token);
  }
}

// A guess counts only if all before it were right.
void Drafter::learn(Output* output, const std::vector<int32_t>& tokens) {
  for (size_t i = 0; i < std::min(tokens.size(), output->guesses.size()); ++i) {
    const Guess& guess = output->guesses[i];
    guess.rate->learn(guess.token == tokens[i]);
    if (guess.token != tokens[i]) break;
  }
  output->guesses.clear();
}

std::vector<Proposal> Drafter::propose(const std::vector<int64_t>& handles,
                                       const std::vector<int32_t>& limits, float threshold) {
  check_lengths("limits", limits.size(), handles.size());
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::vector<Output*> outputs = find(handles);
  std::vector<Proposal> found;
  found.reserve(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    found.push_back(propose(outputs[i], std::min(limits[i], max_draft_), threshold));
  }
  return found;
}

Proposal Drafter::propose(Output* output, int32_t limit, float threshold) {
  const std::vector<int32_t>& written = output->sources.back().tokens();
  tail_.assign(written.end() - static_cast<ptrdiff_t>(std::min(kMaxMatch, written.size())),
               written.end());
  output->guesses.clear();
  Proposal found;
  double chance = 1.0;
  Guess last{};
  for (int32_t n = 0;; ++n) {
    last = guess(*output, last);
    if (last.rate == nullptr) return found;
    // The first guess that is not proposed counts too: otherwise a source that has fallen below the
    // threshold could never recover.
    output->guesses.push_back(last);
    chance *= last.rate->chance();
    if (n >= limit || !(chance >= static_cast<double>(threshold))) return found;
    found.tokens.push_back(last.token);
    found.chances.push_back(static_cast<float>(chance));
    tail_.push_back(last.token);
  }
}

// The likeliest next token, the first source's if tied; `last` is the draft's previous guess.
Drafter::Guess Drafter::guess(const Output& output, const Guess& last) {
  Guess best{};
  for (size_t source = 0; source <= output.sources.size(); ++source) {
    const Guess other = source < output.sources.size() ? guess_from(output, source, last)
                                                       : guess_from_history(source);
    if (other.rate == nullptr) continue;
    if (best.rate == nullptr || other.rate->chance() > best.rate->chance()) best = other;
  }
  return best;
}

// Continues where the draft's last token came from, or looks up the tail.
Drafter::Guess Drafter::guess_from(const Output& output, size_t source, const Guess& last) {
  const SuffixIndex& index = output.sources[source];
  Match match{};
  if (last.rate != nullptr && last.source == source && index.proposes(last.position + 1)) {
    match = {std::min(last.length + 1, kMaxMatch), last.position + 1};
  } else {
    match = index.find(tail_);
  }
  if (match.length == 0) return {};
  const bool is_own = source + 1 == output.sources.size();
  const size_t kind = is_own ? kGivenKinds : std::min(source, kGivenKinds - 1);
  return {index.tokens()[match.position], &rates_[kind][match.length - 1], source, match.length,
          match.position};
}

Drafter::Guess Drafter::guess_from_history(size_t source) {
  const Prediction found = history_.predict(tail_);
  if (found.context == 0) return {};
  return {found.token, &history_rates_[found.context - 1][found.evidence], source, 0, 0};
}

void Drafter::close(int64_t handle, bool learn) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Output* const output = find({handle}).front();
  if (learn) history_.learn(output->sources.back().tokens());
  outputs_.erase(handle);
}

std::vector<Drafter::Output*> Drafter::find(const std::vector<int64_t>& handles) const {
  std::vector<Output*> found;
  found.reserve(handles.size());
  for (const int64_t handle : handles) {
    const auto output = outputs_.find(handle);
    if (output == outputs_.end()) {
      throw std::invalid_argument("no open output has the handle " + std::to_string(handle));
    }
    found.push_back(output->second.get());
  }
  return found;
}

}  // namespace flipfast
