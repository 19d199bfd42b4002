// Row-wise operations: norms, rotation, gated activations, embedding, arg-max, log-probability.
//
// A row is summed in a fixed pattern of lanes, so its bits depend on its own numbers alone.
#pragma once

#include "cpu/kernels.h"
#include "cpu/vector_math.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// Calls body(i, n) for each vector of a row of d numbers: n lanes from index i.
template <class Body>
FLIPFAST_INLINE void each_vector(int d, const Body& body) {
  int i = 0;
  for (; i + kWidth <= d; i += kWidth) body(i, kWidth);
  if (i < d) body(i, d - i);
}

FLIPFAST_INLINE Vec get(const float* p, int n) { return n == kWidth ? load(p) : load_first(p, n); }

FLIPFAST_INLINE void put(float* p, Vec v, int n) {
  if (n == kWidth) {
    store(p, v);
  } else {
    store_first(p, v, n);
  }
}

FLIPFAST_INLINE float square_root(float x) { return __builtin_sqrtf(x); }

// Sum of squares in four interleaved vectors.
FLIPFAST_INLINE Vec squares(const float* x, int d) {
  Vec sums[4] = {};
  int i = 0;
  for (; i + 4 * kWidth <= d; i += 4 * kWidth) {
    FLIPFAST_UNROLL for (int v = 0; v < 4; ++v) {
      const Vec value = load(x + i + v * kWidth);
      sums[v] = fma(value, value, sums[v]);
    }
  }
  for (; i < d; i += kWidth) {
    const Vec value = get(x + i, least(kWidth, d - i));
    sums[0] = fma(value, value, sums[0]);
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

FLIPFAST_INLINE float inverse_rms(float sum_of_squares, int d, float eps) {
  return 1.0f / square_root(sum_of_squares / static_cast<float>(d) + eps);
}

void rms_norm(const NormArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    const float* x = args.x + row * args.x_stride;
    if (args.residual != nullptr) {
      float* const residual = args.residual + row * args.residual_stride;
      each_vector(args.d, [&](int i, int n) {
        put(residual + i, get(residual + i, n) + get(x + i, n), n);
      });
      x = residual;
    }
    const float factor = inverse_rms(sum(squares(x, args.d)), args.d, args.eps);
    float* const out = args.out + row * args.out_stride;
    each_vector(args.d, [&](int i, int n) {
      put(out + i, get(x + i, n) * factor * get(args.weight + i, n), n);
    });
  }
}

void add(const AddArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    const float* const x = args.x + row * args.x_stride;
    float* const residual = args.residual + row * args.residual_stride;
    each_vector(args.d,
                [&](int i, int n) { put(residual + i, get(residual + i, n) + get(x + i, n), n); });
  }
}

FLIPFAST_INLINE void scale_head(float* x, int d, float factor, const float* weight) {
  each_vector(d, [&](int i, int n) { put(x + i, get(x + i, n) * factor * get(weight + i, n), n); });
}

FLIPFAST_INLINE void rotate(float* x, int half, const float* cos, const float* sin) {
  each_vector(half, [&](int i, int n) {
    const Vec first = get(x + i, n);
    const Vec second = get(x + half + i, n);
    const Vec c = get(cos + i, n);
    const Vec s = get(sin + i, n);
    put(x + i, first * c - second * s, n);
    put(x + half + i, second * c + first * s, n);
  });
}

void norm_rope(const RopeArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    float* const token = args.x + row * args.token_stride;
    float factor = 0.0f;
    if (args.weight != nullptr && args.norm_all_heads) {
      Vec total = {};
      for (int h = 0; h < args.heads; ++h) {
        total += squares(token + h * args.head_stride, args.head_dim);
      }
      factor = inverse_rms(sum(total), args.heads * args.head_dim, args.eps);
    }
    for (int h = 0; h < args.heads; ++h) {
      float* const x = token + h * args.head_stride;
      if (args.weight != nullptr) {
        if (!args.norm_all_heads) {
          factor = inverse_rms(sum(squares(x, args.head_dim)), args.head_dim, args.eps);
        }
        const float* const weight = args.weight + (args.norm_all_heads ? h * args.head_dim : 0);
        scale_head(x, args.head_dim, factor, weight);
      }
      if (args.cos != nullptr) {
        const ptrdiff_t place = args.positions[row] * args.table_stride;
        rotate(x, args.rotary_half, args.cos + place, args.sin + place);
      }
    }
  }
}

void gated(const GatedArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    const float* const gate = args.gate_up + row * args.gate_up_stride;
    const float* const up = gate + args.d;
    float* const out = args.out + row * args.out_stride;
    if (args.activation == Activation::kSilu) {
      each_vector(args.d,
                  [&](int i, int n) { put(out + i, silu(get(gate + i, n)) * get(up + i, n), n); });
    } else {
      each_vector(args.d, [&](int i, int n) {
        put(out + i, gelu_tanh(get(gate + i, n)) * get(up + i, n), n);
      });
    }
  }
}

void embed(const EmbedArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    const ptrdiff_t place = args.ids[row] * args.table_stride;
    float* const out = args.out + row * args.out_stride;
    if (args.storage == Storage::kFloat32) {
      const float* const from = static_cast<const float*>(args.table) + place;
      for (int i = 0; i < args.d; ++i) out[i] = from[i] * args.scale;
    } else {
      const uint16_t* const from = static_cast<const uint16_t*>(args.table) + place;
      for (int i = 0; i < args.d; ++i) out[i] = widen(from[i]) * args.scale;
    }
  }
}

// Whether any lane is set.
FLIPFAST_INLINE bool any(Ints mask) {
  int found = 0;
  for (int i = 0; i < kWidth; ++i) found |= mask[i];
  return found != 0;
}

FLIPFAST_INLINE int64_t argmax_row(const float* x, int n) {
  Vec top = splat(-kInfinity);
  Ints strange = {};
  each_vector(n, [&](int i, int lanes) {
    // Lanes past the end repeat the first number of the row.
    Vec v = splat(x[0]);
    if (lanes == kWidth) {
      v = load(x + i);
    } else {
      __builtin_memcpy(&v, x + i, static_cast<size_t>(lanes) * sizeof(float));
    }
    strange |= (Ints)(v != v);
    top = max(v, top);
  });
  const float best = largest(top);
  if (any(strange) || best == kInfinity || best == -kInfinity) return -1;
  int i = 0;
  for (; i + kWidth <= n && !any((Ints)(load(x + i) == splat(best))); i += kWidth) {
  }
  while (x[i] != best) ++i;
  return i;
}

void argmax(const ArgmaxArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    args.out[row] = argmax_row(args.logits + row * args.stride, args.n);
  }
}

// Sum of e**(x - top): lanes in float32 over a block of numbers, blocks in float64.
FLIPFAST_INLINE double sum_exp(const float* x, int64_t n, float top) {
  constexpr int kBlock = 1024;
  double total = 0.0;
  for (int64_t start = 0; start < n; start += kBlock) {
    const int size = static_cast<int>(n - start < kBlock ? n - start : kBlock);
    Vec sums = {};
    each_vector(size, [&](int i, int lanes) {
      Vec v = splat(-kInfinity);  // lanes past the end add nothing
      __builtin_memcpy(&v, x + start + i, static_cast<size_t>(lanes) * sizeof(float));
      sums += exp(v - top);
    });
    total += static_cast<double>(sum(sums));
  }
  return total;
}

// Log-probability of each row's target. The log-sum-exp is relative to the largest logit, whose own
// term, 1, is left out of the sum: a log-probability near 0 keeps its relative precision.
void log_prob(const LogProbArgs& args, int begin, int end) {
  for (int row = begin; row < end; ++row) {
    const float* const x = args.logits + row * args.stride;
    const int64_t best = args.best[row];
    if (best < 0) {
      args.out[row] = __builtin_nanf("");
      continue;
    }
    const float top = x[best];
    const double rest = sum_exp(x, best, top) + sum_exp(x + best + 1, args.n - best - 1, top);
    const double below = static_cast<double>(x[args.targets[row]]) - static_cast<double>(top);
    args.out[row] = static_cast<float>(below - __builtin_log1p(rest));
  }
}

constexpr RowKernels kRowKernels = {rms_norm, norm_rope, gated, embed, add, argmax, log_prob};

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
