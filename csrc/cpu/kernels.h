// The kernels that each instruction-set level provides: plain functions over raw memory, one table
// per level. They are single-threaded; the callers in this folder divide the work among threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flipfast::cpu {

constexpr int kPanel = 32;      // columns of a weight panel; tokens of a cache page
constexpr int kKeyBlock = 128;  // keys between two updates of the online softmax

// How numbers are stored in memory. bfloat16 is the upper half of a float32.
enum class Storage { kFloat32, kBfloat16 };

// Operands of a product: float32, or rounded to bfloat16; sums are float32 in both cases.
enum class Compute { kFloat32, kBfloat16 };

// y = x @ weight.T + bias over rows packed beforehand.
//
// The weight is stored in panels of 32 outputs. float32: [panel][k][32]. bfloat16:
// [panel][k / 2][32] words, the value of even k in the lower half and that of k + 1 in the upper,
// so that one shift or mask widens a value, and 16 consecutive rows form an AMX matrix tile. k is
// padded to `k_padded` with zeros.
struct ProductArgs {
  const float* x;  // (rows, k)
  ptrdiff_t x_stride;
  int rows;
  int k;
  int k_padded;
  const void* weight;
  Storage storage;
  const float* bias;  // padded to whole panels, or null
  int n;
  float* y;  // (rows, n)
  ptrdiff_t y_stride;
  void* packed;  // a buffer of packed_bytes(rows, k_padded)
};

struct ProductKernel {
  size_t (*packed_bytes)(int rows, int k_padded);
  int (*blocks)(int rows);                      // number of blocks the rows are packed in
  void (*pack)(const ProductArgs&, int block);  // packs x into `packed`
  void (*run)(const ProductArgs&, int panel_begin, int panel_end, int block_begin, int block_end);
};

// Kinds of quantised weights, by the names that GGUF gives them; quant_panels.h has the layouts.
enum class Kind { kQ4_0, kQ4_1, kQ8_0, kQ4_K, kQ6_K };

constexpr int kQuantBlock = 32;  // numbers of a row that share a scale

// Of a row's numbers x in a block, q = x / scale rounded to bytes: what else a product needs.
struct RowBlock {
  float scale;
  float sum;  // scale times the sum of q
  int32_t half_sums[2];
};

// y = x @ weight.T + bias with weights of one kind, x quantised block by block.
struct QuantArgs {
  const float* x;  // (rows, k)
  ptrdiff_t x_stride;
  int rows;
  int k;                 // of whole blocks
  int8_t* q;             // (k / 32, rows, 32), and room for 15 more rows, which matrix tiles read
  RowBlock* row_blocks;  // (k / 32, rows)
  Kind kind;
  const void* weight;
  const float* bias;  // readable up to the last panel's end, or null
  int n;
  float* y;  // (rows, n)
  ptrdiff_t y_stride;
};

struct QuantKernel {
  void (*quantize)(const QuantArgs&, int row_begin, int row_end);  // x to q and row_blocks
  void (*run)(const QuantArgs&, int panel_begin, int panel_end, int row_begin, int row_end);
};

// Attention of one sequence's queries, all of one KV head, over the pages of its KV cache.
//
// float32 pages: keys [depth][32 tokens], values [32 tokens][depth]. bfloat16 pages hold words like
// a weight panel: keys [depth / 2][32 tokens], values [16 token pairs][depth]. `depth` is head_dim
// padded to a multiple of 32.
struct AttendArgs {
  const float* query;  // first token, first head of the group
  ptrdiff_t query_token_stride;
  ptrdiff_t query_head_stride;
  float* out;  // first token, first head of the group; heads are head_dim apart
  ptrdiff_t out_token_stride;
  const void* keys;  // page 0, this KV head
  const void* values;
  ptrdiff_t page_bytes;  // from one page to the next
  const int32_t* pages;  // page numbers of the sequence
  Storage storage;
  int head_dim;
  int depth;
  int group;   // query heads of the KV head
  int tokens;  // queries of the sequence
  int length;  // keys of the sequence, including the queries' own
  int window;  // keys that a query sees; INT32_MAX for all
  float scale;
  float softcap;  // 0 for none
};

struct AttendKernel {
  int item_rows;  // maximum rows (query tokens times heads) per call
  size_t (*scratch_bytes)(int depth);
  // Rows [row_begin, row_end); row r is token r / group, head r % group.
  void (*run)(const AttendArgs&, int row_begin, int row_end, void* scratch);
};

struct NormArgs {
  const float* x;
  ptrdiff_t x_stride;
  float* residual;  // x is added to it and the sum is normalized; or null
  ptrdiff_t residual_stride;
  const float* weight;
  float eps;
  int d;
  float* out;
  ptrdiff_t out_stride;
};

struct RopeArgs {
  float* x;
  ptrdiff_t token_stride;
  ptrdiff_t head_stride;
  int heads;
  int head_dim;
  const int64_t* positions;
  const float* cos;  // null for no rotation
  const float* sin;
  ptrdiff_t table_stride;
  int rotary_half;
  const float* weight;  // null for no norm
  bool norm_all_heads;
  float eps;
};

enum class Activation { kSilu, kGeluTanh };

struct GatedArgs {
  const float* gate_up;
  ptrdiff_t gate_up_stride;
  int d;
  Activation activation;
  float* out;
  ptrdiff_t out_stride;
};

struct EmbedArgs {
  const int64_t* ids;
  const void* table;
  Storage storage;
  ptrdiff_t table_stride;
  int d;
  float scale;
  float* out;
  ptrdiff_t out_stride;
};

struct AddArgs {
  const float* x;
  ptrdiff_t x_stride;
  float* residual;
  ptrdiff_t residual_stride;
  int d;
};

struct ArgmaxArgs {
  const float* logits;
  ptrdiff_t stride;
  int n;
  int64_t* out;  // -1 where the row has a NaN or no finite maximum
};

struct LogProbArgs {
  const float* logits;
  ptrdiff_t stride;
  int n;
  const int64_t* best;  // the result of argmax
  const int64_t* targets;
  float* out;  // NaN where best is -1
};

// Each processes rows [begin, end).
struct RowKernels {
  void (*rms_norm)(const NormArgs&, int begin, int end);
  void (*norm_rope)(const RopeArgs&, int begin, int end);
  void (*gated)(const GatedArgs&, int begin, int end);
  void (*embed)(const EmbedArgs&, int begin, int end);
  void (*add)(const AddArgs&, int begin, int end);
  void (*argmax)(const ArgmaxArgs&, int begin, int end);
  void (*log_prob)(const LogProbArgs&, int begin, int end);
};

struct Kernels {
  const char* name;
  ProductKernel product[2];  // by Compute
  AttendKernel attend[2];    // by Storage of the cache
  RowKernels rows;
  QuantKernel quant;
};

}  // namespace flipfast::cpu
