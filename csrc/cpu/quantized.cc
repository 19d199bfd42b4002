#include "cpu/quantized.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/levels.h"
#include "cpu/row_parts.h"

namespace flipfast::cpu {
namespace {

constexpr int kMatrixRows = 16;  // rows that matrix tiles read at a time

std::string span(int first_row, int n_rows) {
  return std::to_string(first_row) + " to " + std::to_string(first_row + n_rows - 1);
}

}  // namespace

QuantizedLinear::QuantizedLinear(int n_out, int n_in, bool has_bias)
    : kernel_(current().quant), n_out_(n_out), n_in_(n_in) {
  if (n_in % kQuantBlock != 0) {
    throw std::invalid_argument("quantised weights have blocks of " + std::to_string(kQuantBlock) +
                                " inputs; " + std::to_string(n_in) + " are no multiple of that");
  }
  // Kernels read whole panels of it, wherever a part begins.
  if (has_bias) bias_ = zeros(static_cast<size_t>(n_out + kPanel - 1) * sizeof(float));
}

size_t QuantizedLinear::panel_bytes(const Part& part) const {
  return static_cast<size_t>(n_in_ / part.format->numbers) * part.format->panel_bytes;
}

size_t QuantizedLinear::nbytes() const {
  size_t bytes = bias_ ? static_cast<size_t>(n_out_ + kPanel - 1) * sizeof(float) : 0;
  for (const Part& part : parts_) bytes += static_cast<size_t>(part.n_panels()) * panel_bytes(part);
  return bytes;
}

void QuantizedLinear::load_rows(const uint8_t* rows, ptrdiff_t row_bytes, const Format& format,
                                int first_row, int n_rows) {
  if (n_in_ % format.numbers != 0) {
    throw std::invalid_argument(std::string(format.name) + " has blocks of " +
                                std::to_string(format.numbers) + " inputs; " +
                                std::to_string(n_in_) + " are no multiple of that");
  }
  if (n_rows == 0) return;
  Part part = {&format, first_row, n_rows, {}};
  auto place = parts_.begin();
  while (place != parts_.end() && place->first_row + place->n_rows <= first_row) ++place;
  const bool taken = place != parts_.end() && place->first_row < first_row + n_rows;
  if (taken && (place->first_row != first_row || place->n_rows != n_rows)) {
    throw std::invalid_argument("rows " + span(first_row, n_rows) + " overlap rows " +
                                span(place->first_row, place->n_rows) + ", loaded before");
  }
  const size_t bytes = panel_bytes(part);
  part.panels = zeros(static_cast<size_t>(part.n_panels()) * bytes);
  char* const panels = static_cast<char*>(part.panels.get());
  parallel_for(static_cast<size_t>(part.n_panels()), [&](size_t panel) {
    const int begin = static_cast<int>(panel) * kPanel;
    const int end = std::min(begin + kPanel, n_rows);
    char* to = panels + panel * bytes;
    for (int block = 0; block < n_in_ / format.numbers; ++block, to += format.panel_bytes) {
      const uint8_t* from = rows + static_cast<size_t>(block) * format.bytes + begin * row_bytes;
      for (int row = begin; row < end; ++row, from += row_bytes) format.put(from, to, row - begin);
    }
  });
  if (taken) {
    *place = std::move(part);
  } else {
    parts_.insert(place, std::move(part));
  }
}

void QuantizedLinear::load_bias(const float* bias, int first_row, int n_rows) {
  std::memcpy(static_cast<float*>(bias_.get()) + first_row, bias,
              static_cast<size_t>(n_rows) * sizeof(float));
}

void QuantizedLinear::forward(const float* x, ptrdiff_t x_stride, size_t n_rows, float* y,
                              ptrdiff_t y_stride) const {
  in_row_parts<QuantArgs>(x, x_stride, n_rows, y, y_stride,
                          [this](const QuantArgs& args) { forward_rows(args); });
}

void QuantizedLinear::forward_rows(QuantArgs args) const {
  const size_t rows = static_cast<size_t>(args.rows);
  const size_t row_blocks = rows * static_cast<size_t>(n_in_ / kQuantBlock);
  args.k = n_in_;
  args.bias = static_cast<const float*>(bias_.get());
  args.n = n_out_;
  const size_t q_bytes = rows * static_cast<size_t>(n_in_) + (kMatrixRows - 1) * kQuantBlock;
  char* const room =
      static_cast<char*>(scratch(Room::kCall, q_bytes + row_blocks * sizeof(RowBlock)));
  args.q = reinterpret_cast<int8_t*>(room);
  args.row_blocks = reinterpret_cast<RowBlock*>(room + q_bytes);

  const size_t numbers = rows * static_cast<size_t>(n_in_);
  for_each(rows, numbers, [&](size_t row) {
    kernel_.quantize(args, static_cast<int>(row), static_cast<int>(row) + 1);
  });

  int n_panels = 0;
  int loaded = 0;
  for (const Part& part : parts_) {
    n_panels += part.n_panels();
    loaded += part.n_rows;
  }
  if (loaded < n_out_) fill(args);
  const int row_parts = divide_up(args.rows, kRowsATask);
  const int panels_a_task = std::max(1, std::min(4, divide_up(n_panels, threads())));
  const int strips = divide_up(n_panels, panels_a_task);
  const size_t tasks = static_cast<size_t>(strips) * static_cast<size_t>(row_parts);
  for_each(tasks, numbers * static_cast<size_t>(n_out_), [&](size_t task) {
    const int begin = static_cast<int>(task) % strips * panels_a_task;
    const int part = static_cast<int>(task) / strips;
    run(args, begin, std::min(begin + panels_a_task, n_panels), args.rows * part / row_parts,
        args.rows * (part + 1) / row_parts);
  });
}

// What rows of the weight give that are not loaded yet.
void QuantizedLinear::fill(const QuantArgs& args) const {
  for (int row = 0; row < args.rows; ++row) {
    float* const y = args.y + row * args.y_stride;
    std::fill(y, y + n_out_, 0.0f);
    if (args.bias != nullptr) std::copy(args.bias, args.bias + n_out_, y);
  }
}

// Panels are counted through all parts.
void QuantizedLinear::run(const QuantArgs& args, int panel_begin, int panel_end, int row_begin,
                          int row_end) const {
  int first_panel = 0;
  for (const Part& part : parts_) {
    const int begin = std::max(panel_begin - first_panel, 0);
    const int end = std::min(panel_end - first_panel, part.n_panels());
    first_panel += part.n_panels();
    if (begin >= end) continue;
    QuantArgs own = args;
    own.kind = part.format->kind;
    own.weight = part.panels.get();
    own.bias = args.bias == nullptr ? nullptr : args.bias + part.first_row;
    own.n = part.n_rows;
    own.y = args.y + part.first_row;
    kernel_.run(own, begin, end, row_begin, row_end);
  }
}

void QuantizedLinear::embed(const int64_t* ids, int n, float scale, float* out,
                            ptrdiff_t out_stride) const {
  for_each(
      static_cast<size_t>(n), static_cast<size_t>(n) * static_cast<size_t>(n_in_), [&](size_t i) {
        embed_row(static_cast<int>(ids[i]), scale, out + static_cast<ptrdiff_t>(i) * out_stride);
      });
}

void QuantizedLinear::embed_row(int row, float scale, float* out) const {
  std::fill(out, out + n_in_, 0.0f);
  for (const Part& part : parts_) {
    const int at = row - part.first_row;
    if (at < 0 || at >= part.n_rows) continue;
    const char* panel = static_cast<const char*>(part.panels.get()) +
                        static_cast<size_t>(at / kPanel) * panel_bytes(part);
    for (int k = 0; k < n_in_; k += part.format->numbers, panel += part.format->panel_bytes) {
      part.format->get(panel, at % kPanel, out + k);
    }
  }
  for (int k = 0; k < n_in_; ++k) out[k] *= scale;
}

}  // namespace flipfast::cpu
