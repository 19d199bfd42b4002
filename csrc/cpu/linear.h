// A matrix product with a fixed weight, kept in panels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/kernels.h"

namespace flipfast::cpu {

struct Free {
  void operator()(void* p) const;
};
using Memory = std::unique_ptr<void, Free>;

class PackedLinear {
 public:
  // The weight and the bias are 0 until they are loaded. Throws std::bad_alloc.
  PackedLinear(int n_out, int n_in, Storage storage, Compute compute, bool has_bias);

  int n_out() const { return n_out_; }
  int n_in() const { return n_in_; }
  Storage storage() const { return storage_; }
  bool has_bias() const { return bias_ != nullptr; }
  size_t nbytes() const;

  // Rows first_row and following of the weight; float32 rows are rounded where bfloat16 is stored.
  void load_rows(const void* rows, Storage dtype, ptrdiff_t row_stride, int first_row, int n_rows);
  void load_bias(const float* bias, int first_row, int n_rows);

  // From bfloat16 to float32 storage, values unchanged.
  void widen();

  // y = x @ weight.T + bias: (n_rows, n_in) to (n_rows, n_out), strides in numbers.
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
