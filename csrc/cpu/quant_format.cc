#include "cpu/quant_format.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "cpu/float16.h"
#include "cpu/pool.h"
#include "cpu/quant_panels.h"

namespace flipfast::cpu {
namespace {

constexpr int kSuperNumbers = kSuper * kQuantBlock;

uint16_t word_at(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

void put_nibbles(const uint8_t (&values)[kQuantBlock], Nibbles& to, int column) {
  for (int i = 0; i < kGroups / 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      to.pairs[i][column][j] =
          static_cast<uint8_t>((values[8 * i + j] & 15) | values[8 * i + 4 + j] << 4);
    }
  }
}

int nibble(const Nibbles& from, int column, int k) {
  return from.pairs[k / 8][column][k % 4] >> (k % 8 / 4 * 4) & 15;
}

// In a file, a byte of nibbles has one of the first half of 32 numbers and one of the second.
void put_halves(const uint8_t* bytes, Nibbles& to, int column) {
  uint8_t values[kQuantBlock];
  for (int i = 0; i < kQuantBlock / 2; ++i) {
    values[i] = bytes[i] & 15;
    values[i + kQuantBlock / 2] = bytes[i] >> 4;
  }
  put_nibbles(values, to, column);
}

void put(const uint8_t* block, PanelQ4_0& to, int column) {
  to.d[column] = word_at(block);
  put_halves(block + 2, to.nibbles, column);
}

void get(const PanelQ4_0& from, int column, float* out) {
  const float d = from_float16(from.d[column]);
  for (int k = 0; k < kQuantBlock; ++k) {
    out[k] = d * static_cast<float>(nibble(from.nibbles, column, k) - 8);
  }
}

void put(const uint8_t* block, PanelQ4_1& to, int column) {
  to.d[column] = word_at(block);
  to.m[column] = word_at(block + 2);
  put_halves(block + 4, to.nibbles, column);
}

void get(const PanelQ4_1& from, int column, float* out) {
  const float d = from_float16(from.d[column]);
  const float m = from_float16(from.m[column]);
  for (int k = 0; k < kQuantBlock; ++k) {
    out[k] = d * static_cast<float>(nibble(from.nibbles, column, k)) + m;
  }
}

void put(const uint8_t* block, PanelQ8_0& to, int column) {
  to.d[column] = word_at(block);
  for (int i = 0; i < kGroups; ++i) std::memcpy(to.bytes[i][column], block + 2 + 4 * i, 4);
}

void get(const PanelQ8_0& from, int column, float* out) {
  const float d = from_float16(from.d[column]);
  for (int k = 0; k < kQuantBlock; ++k) {
    out[k] = static_cast<float>(static_cast<int8_t>(from.bytes[k / 4][column][k % 4])) * d;
  }
}

// A block of the file: d, dmin, the scales, nibbles. Scales and mins 0 to 3 are the lower 6 bits of
// bytes 0 to 3 and 4 to 7; 4 to 7 have their lower 4 bits in bytes 8 to 11, and their upper 2 in
// those of the first.
void put(const uint8_t* block, PanelQ4_K& to, int column) {
  to.d[column] = word_at(block);
  to.dmin[column] = word_at(block + 2);
  const uint8_t* const packed = block + 4;
  const uint8_t* const nibbles = packed + 12;
  for (int i = 0; i < kSuper; ++i) {
    PanelQ4_K::Block& out = to.blocks[i];
    const int j = i % 4;
    const bool late = i >= 4;
    out.scale[column] =
        static_cast<uint8_t>(late ? (packed[8 + j] & 15) | (packed[j] >> 6) << 4 : packed[j] & 63);
    out.min[column] = static_cast<uint8_t>(late ? packed[8 + j] >> 4 | (packed[4 + j] >> 6) << 4
                                                : packed[4 + j] & 63);
    uint8_t values[kQuantBlock];
    for (int k = 0; k < kQuantBlock; ++k) {
      values[k] = nibbles[i / 2 * kQuantBlock + k] >> (i % 2 * 4) & 15;
    }
    put_nibbles(values, out.nibbles, column);
  }
}

void get(const PanelQ4_K& from, int column, float* out) {
  const float d = from_float16(from.d[column]);
  const float dmin = from_float16(from.dmin[column]);
  for (const PanelQ4_K::Block& block : from.blocks) {
    const float scale = d * static_cast<float>(block.scale[column]);
    const float min = dmin * static_cast<float>(block.min[column]);
    for (int k = 0; k < kQuantBlock; ++k) {
      *out++ = scale * static_cast<float>(nibble(block.nibbles, column, k)) - min;
    }
  }
}

// A block of the file: 128 bytes of lower nibbles, 64 of upper 2 bits, 16 scales, d. Each half of
// the 256 numbers has 64 and 32 of those bytes, for its four quarters.
void put(const uint8_t* block, PanelQ6_K& to, int column) {
  const uint8_t* const scales = block + 192;
  to.d[column] = word_at(scales + 16);
  for (int i = 0; i < kSuper; ++i) {
    PanelQ6_K::Block& out = to.blocks[i];
    const int quarter = i % 4;
    const uint8_t* const lower = block + i / 4 * 64 + quarter % 2 * kQuantBlock;
    const uint8_t* const upper = block + 128 + i / 4 * kQuantBlock;
    for (int half = 0; half < 2; ++half) {
      out.scale[half][column] = static_cast<int8_t>(scales[2 * i + half]);
    }
    uint8_t values[kQuantBlock];
    for (int k = 0; k < kQuantBlock; ++k) values[k] = lower[k] >> (quarter / 2 * 4) & 15;
    put_nibbles(values, out.nibbles, column);
    for (int group = 0; group < kGroups; group += 4) {
      for (int j = 0; j < 4; ++j) {
        int byte = 0;
        for (int g = 0; g < 4; ++g) {
          byte |= (upper[(group + g) * 4 + j] >> (2 * quarter) & 3) << (2 * g);
        }
        out.upper[group / 4][column][j] = static_cast<uint8_t>(byte);
      }
    }
  }
}

void get(const PanelQ6_K& from, int column, float* out) {
  const float d = from_float16(from.d[column]);
  for (const PanelQ6_K::Block& block : from.blocks) {
    for (int k = 0; k < kQuantBlock; ++k) {
      const float scale = d * static_cast<float>(block.scale[k / (kQuantBlock / 2)][column]);
      const int upper = block.upper[k / 16][column][k % 4] >> (k / 4 % 4 * 2) & 3;
      *out++ = scale * static_cast<float>((nibble(block.nibbles, column, k) | upper << 4) - 32);
    }
  }
}

void put_word(uint16_t word, uint8_t* bytes) {
  bytes[0] = static_cast<uint8_t>(word);
  bytes[1] = static_cast<uint8_t>(word >> 8);
}

bool all_finite(const float* x) {
  int32_t largest = 0;  // the bits of |x| are in the order of the numbers
  for (int k = 0; k < kQuantBlock; ++k) {
    int32_t bits;
    std::memcpy(&bits, x + k, sizeof(bits));
    largest = std::max(largest, bits & 0x7fffffff);
  }
  return largest < 0x7f800000;
}

// 0 where the scale is none, or too small to be one as float16.
float inverse(float d) {
  const float inverse = 1 / d;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// Four bits each, of numbers not below 0; the conversions drop the fraction.
void put_rounded(const float (&values)[kQuantBlock], uint8_t* bytes) {
  for (int i = 0; i < kQuantBlock / 2; ++i) {
    const int low = std::min(static_cast<int>(values[i]), 15);
    const int high = std::min(static_cast<int>(values[i + kQuantBlock / 2]), 15);
    bytes[i] = static_cast<uint8_t>(low | high << 4);
  }
}

bool encode_q4_0(const float* x, uint8_t* block) {
  if (!all_finite(x)) return false;
  float most = x[0];
  for (int k = 1; k < kQuantBlock; ++k) {
    if (std::fabs(x[k]) > std::fabs(most)) most = x[k];
  }
  const float d = most / -8;
  const float id = inverse(d);
  float values[kQuantBlock];
  for (int k = 0; k < kQuantBlock; ++k) values[k] = x[k] * id + 8.5f;
  put_word(to_float16(d), block);
  put_rounded(values, block + 2);
  return true;
}

bool encode_q4_1(const float* x, uint8_t* block) {
  if (!all_finite(x)) return false;
  const float least = *std::min_element(x, x + kQuantBlock);
  const float d = (*std::max_element(x, x + kQuantBlock) - least) / 15;
  const float id = inverse(d);
  float values[kQuantBlock];
  for (int k = 0; k < kQuantBlock; ++k) values[k] = (x[k] - least) * id + 0.5f;
  put_word(to_float16(d), block);
  put_word(to_float16(least), block + 2);
  put_rounded(values, block + 4);
  return true;
}

// Rounds halves away from zero.
bool encode_q8_0(const float* x, uint8_t* block) {
  if (!all_finite(x)) return false;
  float most = 0;
  for (int k = 0; k < kQuantBlock; ++k) most = std::max(most, std::fabs(x[k]));
  const float d = most / 127;
  const float id = inverse(d);
  put_word(to_float16(d), block);
  for (int k = 0; k < kQuantBlock; ++k) {
    const float value = x[k] * id;
    const float size = std::fabs(value);
    const int whole = static_cast<int>(size);
    const int rounded = whole + (2 * (size - static_cast<float>(whole)) >= 1 ? 1 : 0);
    block[2 + k] = static_cast<uint8_t>(value < 0 ? -rounded : rounded);
  }
  return true;
}

template <class Panel>
Format of(const char* name, Kind kind, int numbers, size_t bytes,
          bool (*encode)(const float*, uint8_t*) = nullptr) {
  return {name,
          kind,
          numbers,
          bytes,
          sizeof(Panel),
          [](const uint8_t* block, void* panel, int column) {
            put(block, *static_cast<Panel*>(panel), column);
          },
          [](const void* panel, int column, float* out) {
            get(*static_cast<const Panel*>(panel), column, out);
          },
          encode};
}

constexpr size_t kMostPanelBytes =
    std::max({sizeof(PanelQ4_0), sizeof(PanelQ4_1), sizeof(PanelQ8_0), sizeof(PanelQ4_K),
              sizeof(PanelQ6_K)});

// Calls run(begin, end) for parts of n in all threads.
template <class Run>
void in_runs(size_t n, const Run& run) {
  constexpr size_t kPart = 1024;
  parallel_for((n + kPart - 1) / kPart,
               [&](size_t part) { run(part * kPart, std::min((part + 1) * kPart, n)); });
}

// In the order of Kind.
const Formats kAll = {
    of<PanelQ4_0>("Q4_0", Kind::kQ4_0, kQuantBlock, 18, encode_q4_0),
    of<PanelQ4_1>("Q4_1", Kind::kQ4_1, kQuantBlock, 20, encode_q4_1),
    of<PanelQ8_0>("Q8_0", Kind::kQ8_0, kQuantBlock, 34, encode_q8_0),
    of<PanelQ4_K>("Q4_K", Kind::kQ4_K, kSuperNumbers, 144),
    of<PanelQ6_K>("Q6_K", Kind::kQ6_K, kSuperNumbers, 210),
};

}  // namespace

const Formats& formats() { return kAll; }

const Format& format(Kind kind) { return kAll[static_cast<int>(kind)]; }

void dequantize(const Format& format, const uint8_t* blocks, size_t n_blocks, float* out) {
  in_runs(n_blocks, [&](size_t begin, size_t end) {
    alignas(64) char panel[kMostPanelBytes] = {};
    for (size_t i = begin; i < end; ++i) {
      format.put(blocks + i * format.bytes, panel, 0);
      format.get(panel, 0, out + i * static_cast<size_t>(format.numbers));
    }
  });
}

bool quantize(const Format& format, const float* x, size_t n_blocks, uint8_t* out) {
  std::atomic<bool> finite(true);
  in_runs(n_blocks, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const float* const numbers = x + i * static_cast<size_t>(format.numbers);
      if (!format.encode(numbers, out + i * format.bytes)) finite = false;
    }
  });
  return finite;
}

}  // namespace flipfast::cpu
