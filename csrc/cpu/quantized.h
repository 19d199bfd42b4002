// Matrix product with a fixed weight of GGUF's quantised blocks, in panels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/quant_format.h"

namespace flipfast::cpu {

class QuantizedLinear {
 public:
  // Weight and bias are 0 until loaded. Throws std::bad_alloc, and std::invalid_argument where n_in
  // is not of whole blocks of 32.
  QuantizedLinear(int n_out, int n_in, bool has_bias);

  int n_out() const { return n_out_; }
  int n_in() const { return n_in_; }
  bool has_bias() const { return bias_ != nullptr; }
  size_t nbytes() const;

  // Loads n_rows rows from first_row on, blocks of one kind, row_bytes from row to row. Rows that
  // are loaded together share panels, so other kinds may lie beside them; loading over them needs
  // the same rows. Throws std::invalid_argument, before anything changes.
  void load_rows(const uint8_t* rows, ptrdiff_t row_bytes, const Format& format, int first_row,
                 int n_rows);
  void load_bias(const float* bias, int first_row, int n_rows);

  // y = x @ weight.T + bias: (n_rows, n_in) to (n_rows, n_out), strides in elements.
  void forward(const float* x, ptrdiff_t x_stride, size_t n_rows, float* y,
               ptrdiff_t y_stride) const;

  // Rows `ids` of the weight, each below n_out, in float32 and times scale.
  void embed(const int64_t* ids, int n, float scale, float* out, ptrdiff_t out_stride) const;

 private:
  struct Part {
    const Format* format;
    int first_row;
    int n_rows;
    Memory panels;

    int n_panels() const { return (n_rows + kPanel - 1) / kPanel; }
  };

  size_t panel_bytes(const Part& part) const;
  void forward_rows(QuantArgs args) const;
  void fill(const QuantArgs& args) const;
  void run(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) const;
  void embed_row(int row, float scale, float* out) const;

  const QuantKernel& kernel_;
  int n_out_;
  int n_in_;
  std::vector<Part> parts_;  // in the order of their rows
  Memory bias_;
};

}  // namespace flipfast::cpu
