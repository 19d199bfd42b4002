// Matrix product with a fixed weight, stored in panels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace flipfast::cpu {

class PackedLinear {
 public:
  // Weight and bias are 0 until loaded. Throws std::bad_alloc.
  PackedLinear(int n_out, int n_in, Storage storage, Compute compute, bool has_bias);

  int n_out() const { return n_out_; }
  int n_in() const { return n_in_; }
  Storage storage() const { return storage_; }
  bool has_bias() const { return bias_ != nullptr; }
  size_t nbytes() const;

  // Loads n_rows rows of the weight from first_row on, rounding float32 rows if bfloat16 is stored.
  void load_rows(const void* rows, Storage dtype, ptrdiff_t row_stride, int first_row, int n_rows);
  void load_bias(const float* bias, int first_row, int n_rows);

  // Converts bfloat16 storage to float32; values are unchanged.
  void widen();

  // y = x @ weight.T + bias: (n_rows, n_in) to (n_rows, n_out), strides in elements.
  void forward(const float* x, ptrdiff_t x_stride, size_t n_rows, float* y,
               ptrdiff_t y_stride) const;

 private:
  int panels() const { return (n_out_ + kPanel - 1) / kPanel; }
  void forward_rows(ProductArgs args) const;
  void allocate(Storage storage);

  const Kernels& kernels_;
  int n_out_;
  int n_in_;
  int k_padded_ = 0;
  Storage storage_;
  Compute compute_;
  Memory weight_;
  Memory bias_;
};

}  // namespace flipfast::cpu
