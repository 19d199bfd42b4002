// Word-level F1 from the multiset overlap of two texts' words.
#pragma once

#include <cstddef>
#include <vector>

#include "text/normalize.h"

namespace flipfast {

struct Pair {
  Text prediction;
  Text reference;
};

struct Score {
  double f1, precision, recall;
};

// Scores every pair into `scores[row]`. `threads` 0 picks a number based on the batch size; the
// scores do not depend on it. Touches no Python object, so it runs without the GIL.
void overlap_f1(const std::vector<Pair>& pairs, size_t threads, Score* scores);

}  // namespace flipfast
