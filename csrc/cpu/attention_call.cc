#include "cpu/attention_call.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/bfloat16.h"
#include "cpu/levels.h"
#include "cpu/pool.h"

namespace flipfast::cpu {
namespace {

// Rows of one sequence and KV head.
struct Item {
  int sequence;
  int kv_head;
  int row_begin;
  int row_end;
};

// A sequence's last rows see the most keys and come first, so that short items fill the gaps.
std::vector<Item> divide(const Step& step, int kv_heads, int item_rows) {
  const int group = step.heads / kv_heads;
  std::vector<Item> items;
  for (int s = 0; s < step.sequences; ++s) {
    const int rows = (step.cu_seqlens_q[s + 1] - step.cu_seqlens_q[s]) * group;
    const int parts = (rows + item_rows - 1) / item_rows;
    for (int part = parts - 1; part >= 0; --part) {
      for (int head = 0; head < kv_heads; ++head) {
        items.push_back({s, head, static_cast<int>(int64_t{rows} * part / parts),
                         static_cast<int>(int64_t{rows} * (part + 1) / parts)});
      }
    }
  }
  return items;
}

AttendArgs arguments(const Step& step, const Cache& cache, const Item& item) {
  const int group = step.heads / cache.kv_heads;
  const int first_token = step.cu_seqlens_q[item.sequence];
  const int first_head = item.kv_head * group;
  AttendArgs args = {};
  args.query =
      step.query + first_token * step.query_token_stride + first_head * step.query_head_stride;
  args.query_token_stride = step.query_token_stride;
  args.query_head_stride = step.query_head_stride;
  args.out_token_stride = static_cast<ptrdiff_t>(step.heads) * cache.head_dim;
  args.out = step.out + first_token * args.out_token_stride +
             static_cast<ptrdiff_t>(first_head) * cache.head_dim;
  args.keys = static_cast<const char*>(cache.keys) + item.kv_head * cache.head_bytes();
  args.values = static_cast<const char*>(cache.values) + item.kv_head * cache.head_bytes();
  args.page_bytes = cache.page_bytes();
  args.pages = step.block_tables + item.sequence * step.block_table_stride;
  args.storage = cache.storage;
  args.head_dim = cache.head_dim;
  args.depth = cache.depth();
  args.group = group;
  args.tokens = step.cu_seqlens_q[item.sequence + 1] - first_token;
  args.length = step.seq_lens[item.sequence];
  args.window = step.window;
  args.scale = step.scale;
  args.softcap = step.softcap;
  return args;
}

// Source and destination of one token and head.
struct Place {
  const float* key;
  const float* value;
  char* keys;  // the head's part of the token's page
  char* values;
  int t;  // index of the token in its page
};

Place find(const Tokens& tokens, const Cache& cache, ptrdiff_t token, int head) {
  const int64_t slot = tokens.slots[token];
  const ptrdiff_t offset = slot / kPanel * cache.page_bytes() + head * cache.head_bytes();
  return {tokens.key + token * tokens.key_token_stride + head * tokens.key_head_stride,
          tokens.value + token * tokens.value_token_stride + head * tokens.value_head_stride,
          static_cast<char*>(cache.keys) + offset, static_cast<char*>(cache.values) + offset,
          static_cast<int>(slot % kPanel)};
}

// Layout: keys [d][token], values [token][d]. Tiles read the padding too, so it is written.
void write_floats(const Cache& cache, const Place& place) {
  const int depth = cache.depth();
  float* const keys = reinterpret_cast<float*>(place.keys) + place.t;
  float* const values = reinterpret_cast<float*>(place.values) + place.t * depth;
  for (int d = 0; d < depth; ++d) {
    keys[d * kPanel] = d < cache.head_dim ? place.key[d] : 0.0f;
    values[d] = d < cache.head_dim ? place.value[d] : 0.0f;
  }
}

void round_row(const float* from, int n, int padded, uint16_t* to) {
  for (int d = 0; d < n; ++d) to[d] = to_bfloat16(from[d]);
  std::fill(to + n, to + padded, uint16_t{0});
}

// Each word holds two numbers: keys of two d, values of two tokens, one of which is this one.
void write_halves(const Cache& cache, const Place& place) {
  const int depth = cache.depth();
  uint16_t row[kLargestHead];
  round_row(place.key, cache.head_dim, depth, row);
  uint32_t* const keys = reinterpret_cast<uint32_t*>(place.keys) + place.t;
  for (int d = 0; d < depth; d += 2) {
    keys[d / 2 * kPanel] = row[d] | static_cast<uint32_t>(row[d + 1]) << 16;
  }
  round_row(place.value, cache.head_dim, depth, row);
  uint16_t* const values =
      reinterpret_cast<uint16_t*>(place.values) + place.t / 2 * depth * 2 + place.t % 2;
  for (int d = 0; d < depth; ++d) values[d * 2] = row[d];
}

[[noreturn]] void refuse(int sequence, const std::string& reason) {
  throw std::invalid_argument("sequence " + std::to_string(sequence) + " " + reason);
}

}  // namespace

void check(const Step& step, const Cache& cache) {
  const int32_t* const starts = step.cu_seqlens_q;
  if (starts[0] != 0 || starts[step.sequences] != step.tokens) {
    throw std::invalid_argument("cu_seqlens_q must run from 0 to " + std::to_string(step.tokens) +
                                ", not from " + std::to_string(starts[0]) + " to " +
                                std::to_string(starts[step.sequences]));
  }
  for (int s = 0; s < step.sequences; ++s) {
    const int tokens = starts[s + 1] - starts[s];
    const int length = step.seq_lens[s];
    const int pages = (length + kPanel - 1) / kPanel;
    if (tokens < 0 || tokens > length) {
      refuse(s, "has " + std::to_string(tokens) + " tokens in the step and a length of " +
                    std::to_string(length));
    }
    if (pages > step.block_table_width) {
      refuse(s, "needs " + std::to_string(pages) + " pages, its table has room for " +
                    std::to_string(step.block_table_width));
    }
    for (int i = 0; i < pages; ++i) {
      const int page = step.block_tables[s * step.block_table_stride + i];
      if (page < 0 || page >= cache.n_pages) {
        refuse(s, "has page " + std::to_string(page) + " of a cache of " +
                      std::to_string(cache.n_pages));
      }
    }
  }
}

void attend(const Step& step, const Cache& cache) {
  const AttendKernel& kernel = current().attend[static_cast<int>(cache.storage)];
  const std::vector<Item> items = divide(step, cache.kv_heads, kernel.item_rows);
  const size_t bytes = kernel.scratch_bytes(cache.depth());
  parallel_for(items.size(), [&](size_t i) {
    const AttendArgs args = arguments(step, cache, items[i]);
    kernel.run(args, items[i].row_begin, items[i].row_end, scratch(Room::kTask, bytes));
  });
}

void write_cache(const Tokens& tokens, const Cache& cache) {
  constexpr ptrdiff_t kTokensATask = kPanel;
  const ptrdiff_t tasks = (tokens.n + kTokensATask - 1) / kTokensATask;
  parallel_for(static_cast<size_t>(tasks), [&](size_t task) {
    const ptrdiff_t begin = static_cast<ptrdiff_t>(task) * kTokensATask;
    const ptrdiff_t end = std::min<ptrdiff_t>(begin + kTokensATask, tokens.n);
    // Heads in the outer loop: every token touches all cache lines of a head's page again.
    for (int head = 0; head < cache.kv_heads; ++head) {
      for (ptrdiff_t token = begin; token < end; ++token) {
        const Place place = find(tokens, cache, token, head);
        if (cache.storage == Storage::kFloat32) {
          write_floats(cache, place);
        } else {
          write_halves(cache, place);
        }
      }
    }
  });
}

}  // namespace flipfast::cpu
