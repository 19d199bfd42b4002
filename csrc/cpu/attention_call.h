// Attention of a whole step: many sequences, each with its own pages, shared among threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"

namespace flipfast::cpu {

constexpr int kLargestHead = 512;

// The KV cache pages of one layer: [page][KV head][...], see AttendArgs.
struct Cache {
  void* keys;
  void* values;
  int n_pages;
  Storage storage;
  int kv_heads;
  int head_dim;

  int depth() const { return (head_dim + kPanel - 1) / kPanel * kPanel; }
  ptrdiff_t head_bytes() const {
    return static_cast<ptrdiff_t>(depth()) * kPanel * (storage == Storage::kFloat32 ? 4 : 2);
  }
  ptrdiff_t page_bytes() const { return head_bytes() * kv_heads; }
};

struct Step {
  const float* query;  // (tokens, heads, head_dim)
  ptrdiff_t query_token_stride;
  ptrdiff_t query_head_stride;
  int tokens;
  float* out;  // (tokens, heads * head_dim)
  int heads;
  int sequences;
  const int32_t* cu_seqlens_q;
  const int32_t* seq_lens;
  const int32_t* block_tables;
  ptrdiff_t block_table_stride;
  int block_table_width;
  int window;
  float scale;
  float softcap;
};

// Throws std::invalid_argument if the step's numbers are inconsistent or outside the cache.
void check(const Step& step, const Cache& cache);

void attend(const Step& step, const Cache& cache);

struct Tokens {
  const float* key;  // (tokens, KV heads, head_dim), like value
  ptrdiff_t key_token_stride;
  ptrdiff_t key_head_stride;
  const float* value;
  ptrdiff_t value_token_stride;
  ptrdiff_t value_head_stride;
  const int64_t* slots;
  int n;
};

// Writes keys and values to their slots, rounded to the cache's dtype.
void write_cache(const Tokens& tokens, const Cache& cache);

}  // namespace flipfast::cpu
