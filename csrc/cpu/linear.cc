#include "cpu/linear.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/bfloat16.h"
#include "cpu/levels.h"
#include "cpu/row_parts.h"

namespace flipfast::cpu {
namespace {

void put(float* panel, int k, int column, float value) { panel[k * kPanel + column] = value; }
void put(uint16_t* panel, int k, int column, uint16_t value) {
  panel[(k / 2 * kPanel + column) * 2 + k % 2] = value;
}

float converted(float x, float*) { return x; }
float converted(uint16_t x, float*) { return from_bfloat16(x); }
uint16_t converted(float x, uint16_t*) { return to_bfloat16(x); }
uint16_t converted(uint16_t x, uint16_t*) { return x; }

// Loads rows [first, last), all of one panel, a few k at a time, so that the panel's cache lines
// are written while they are in the cache.
template <class From, class To>
void load_panel(const From* rows, ptrdiff_t stride, int first, int last, int n_in, To* panel) {
  constexpr int kBlock = 16;
  for (int k = 0; k < n_in; k += kBlock) {
    const int end = std::min(k + kBlock, n_in);
    for (int row = first; row < last; ++row) {
      const From* const from = rows + (row - first) * stride;
      for (int i = k; i < end; ++i) put(panel, i, row % kPanel, converted(from[i], panel));
    }
  }
}

template <class From, class To>
void load_panels(const From* rows, ptrdiff_t stride, int first, int n_rows, int n_in, int k_padded,
                 To* weight) {
  const int first_panel = first / kPanel;
  const int end_panel = (first + n_rows + kPanel - 1) / kPanel;
  parallel_for(static_cast<size_t>(end_panel - first_panel), [&](size_t i) {
    const int panel = first_panel + static_cast<int>(i);
    const int begin = std::max(first, panel * kPanel);
    const int end = std::min(first + n_rows, (panel + 1) * kPanel);
    load_panel(rows + (begin - first) * stride, stride, begin, end, n_in,
               weight + static_cast<ptrdiff_t>(panel) * k_padded * kPanel);
  });
}

}  // namespace

PackedLinear::PackedLinear(int n_out, int n_in, Storage storage, Compute compute, bool has_bias)
    : kernels_(current()), n_out_(n_out), n_in_(n_in), storage_(storage), compute_(compute) {
  allocate(storage);
  if (has_bias) bias_ = zeros(static_cast<size_t>(panels()) * kPanel * sizeof(float));
}

void PackedLinear::allocate(Storage storage) {
  // Matrix tiles take 32 k at a time.
  const int k_padded = storage == Storage::kFloat32 ? n_in_ : divide_up(n_in_, 32) * 32;
  const size_t size = storage == Storage::kFloat32 ? 4 : 2;
  weight_ = zeros(static_cast<size_t>(panels()) * kPanel * static_cast<size_t>(k_padded) * size);
  storage_ = storage;
  k_padded_ = k_padded;
}

size_t PackedLinear::nbytes() const {
  const size_t columns = static_cast<size_t>(panels()) * kPanel;
  const size_t size = storage_ == Storage::kFloat32 ? 4 : 2;
  return columns * static_cast<size_t>(k_padded_) * size + (bias_ ? columns * sizeof(float) : 0);
}

void PackedLinear::load_rows(const void* rows, Storage dtype, ptrdiff_t stride, int first,
                             int n_rows) {
  const auto load = [&](const auto* from) {
    if (storage_ == Storage::kFloat32) {
      load_panels(from, stride, first, n_rows, n_in_, k_padded_,
                  static_cast<float*>(weight_.get()));
    } else {
      load_panels(from, stride, first, n_rows, n_in_, k_padded_,
                  static_cast<uint16_t*>(weight_.get()));
    }
  };
  if (dtype == Storage::kFloat32) {
    load(static_cast<const float*>(rows));
  } else {
    load(static_cast<const uint16_t*>(rows));
  }
}

void PackedLinear::load_bias(const float* bias, int first_row, int n_rows) {
  std::memcpy(static_cast<float*>(bias_.get()) + first_row, bias,
              static_cast<size_t>(n_rows) * sizeof(float));
}

void PackedLinear::widen() {
  if (storage_ == Storage::kFloat32) return;
  const Memory old = std::move(weight_);
  const int old_padded = k_padded_;
  allocate(Storage::kFloat32);
  parallel_for(static_cast<size_t>(panels()), [&](size_t panel) {
    const uint16_t* const from =
        static_cast<const uint16_t*>(old.get()) + panel * old_padded * kPanel;
    float* const to = static_cast<float*>(weight_.get()) + panel * k_padded_ * kPanel;
    for (int k = 0; k < n_in_; ++k) {
      for (int c = 0; c < kPanel; ++c) {
        to[k * kPanel + c] = from_bfloat16(from[(k / 2 * kPanel + c) * 2 + k % 2]);
      }
    }
  });
}

void PackedLinear::forward(const float* x, ptrdiff_t x_stride, size_t n_rows, float* y,
                           ptrdiff_t y_stride) const {
  in_row_parts<ProductArgs>(x, x_stride, n_rows, y, y_stride,
                            [this](const ProductArgs& args) { forward_rows(args); });
}

void PackedLinear::forward_rows(ProductArgs args) const {
  const ProductKernel& kernel = kernels_.product[static_cast<int>(compute_)];
  args.k = n_in_;
  args.k_padded = k_padded_;
  args.weight = weight_.get();
  args.storage = storage_;
  args.bias = static_cast<const float*>(bias_.get());
  args.n = n_out_;
  args.packed = scratch(Room::kCall, kernel.packed_bytes(args.rows, k_padded_));

  const int blocks = kernel.blocks(args.rows);
  const size_t numbers = static_cast<size_t>(args.rows) * static_cast<size_t>(n_in_);
  for_each(static_cast<size_t>(blocks), numbers,
           [&](size_t block) { kernel.pack(args, static_cast<int>(block)); });

  // Four panels per task: with few rows as many as are read side by side, with many rows as many as
  // can be reused from the cache.
  const int row_parts = divide_up(args.rows, kRowsATask);
  const int panels_a_task = std::min(4, divide_up(panels(), threads()));
  const int strips = divide_up(panels(), panels_a_task);
  const size_t tasks = static_cast<size_t>(strips) * static_cast<size_t>(row_parts);
  for_each(tasks, numbers * static_cast<size_t>(n_out_), [&](size_t task) {
    const int strip = static_cast<int>(task) % strips;
    const int part = static_cast<int>(task) / strips;
    const int begin = strip * panels_a_task;
    kernel.run(args, begin, std::min(begin + panels_a_task, panels()), blocks * part / row_parts,
               blocks * (part + 1) / row_parts);
  });
}

}  // namespace flipfast::cpu
