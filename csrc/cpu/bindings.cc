// Python bindings of flipfast._cpu; the only file of this folder that uses pybind11. Addresses are
// integers, strides count elements; the Python side has checked them. Every kernel call releases
// the GIL.
#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "cpu/attention_call.h"
#include "cpu/levels.h"
#include "cpu/linear.h"
#include "cpu/pool.h"
#include "cpu/quantized.h"
#include "cpu/row_calls.h"

namespace py = pybind11;

namespace flipfast::cpu {
namespace {

using Unlocked = py::call_guard<py::gil_scoped_release>;
using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

py::list isas() {
  py::list names;
  for (const Kernels* const* level = levels(); *level != nullptr; ++level) {
    names.append((*level)->name);
  }
  return names;
}

void set_isa(const std::string& name) {
  std::string choices;
  for (const Kernels* const* level = levels(); *level != nullptr; ++level) {
    if (name == (*level)->name) return use(**level);
    choices += (choices.empty() ? "" : ", ") + std::string((*level)->name);
  }
  throw std::invalid_argument("no instruction set " + name + " on this CPU, only " + choices);
}

void py_set_threads(int n) {
  if (n < 1) throw std::invalid_argument("threads must be at least 1, not " + std::to_string(n));
  set_threads(n);
}

Storage storage_named(const std::string& name) {
  if (name == "float32") return Storage::kFloat32;
  if (name == "bfloat16") return Storage::kBfloat16;
  throw std::invalid_argument("dtype must be float32 or bfloat16, not " + name);
}

Storage storage_of(bool bfloat16) { return bfloat16 ? Storage::kBfloat16 : Storage::kFloat32; }

void check_rows(const char* what, int first_row, int n_rows, int n_out) {
  if (first_row < 0 || n_rows < 0 || first_row > n_out - n_rows) {
    throw std::out_of_range("rows " + std::to_string(first_row) + " and " +
                            std::to_string(n_rows - 1) + " more are not within the " + what +
                            std::to_string(n_out));
  }
}

void check_shape(int n_out, int n_in) {
  if (n_out < 1 || n_in < 1) {
    throw std::invalid_argument("a weight of shape (" + std::to_string(n_out) + ", " +
                                std::to_string(n_in) + ") has nothing to multiply");
  }
}

std::unique_ptr<PackedLinear> make_linear(int n_out, int n_in, const std::string& storage,
                                          const std::string& compute, bool has_bias) {
  check_shape(n_out, n_in);
  const Storage stored = storage_named(storage);
  const Compute computed =
      storage_named(compute) == Storage::kFloat32 ? Compute::kFloat32 : Compute::kBfloat16;
  if (stored == Storage::kFloat32 && computed == Compute::kBfloat16) {
    throw std::invalid_argument("compute bfloat16 needs storage bfloat16, not float32");
  }
  return std::make_unique<PackedLinear>(n_out, n_in, stored, computed, has_bias);
}

void load_rows(PackedLinear& linear, Address rows, const std::string& dtype, ptrdiff_t stride,
               int first_row, int n_rows) {
  check_rows("weight's ", first_row, n_rows, linear.n_out());
  linear.load_rows(at<void>(rows), storage_named(dtype), stride, first_row, n_rows);
}

template <class Product>
void load_bias(Product& linear, Address bias, int first_row, int n_rows) {
  if (!linear.has_bias()) throw std::invalid_argument("this product was made without a bias");
  check_rows("bias of ", first_row, n_rows, linear.n_out());
  linear.load_bias(at<float>(bias), first_row, n_rows);
}

template <class Product>
void forward(const Product& linear, Address x, ptrdiff_t x_stride, size_t n_rows, Address y,
             ptrdiff_t y_stride) {
  linear.forward(at<float>(x), x_stride, n_rows, at<float>(y), y_stride);
}

// An index outside its table must not become an address.
void check_range(const char* what, const int64_t* values, int n, int64_t limit) {
  for (int i = 0; i < n; ++i) {
    if (values[i] < 0 || values[i] >= limit) {
      throw std::invalid_argument(std::string(what) + " " + std::to_string(values[i]) +
                                  " is not within 0 to " + std::to_string(limit - 1));
    }
  }
}

std::unique_ptr<QuantizedLinear> make_quantized(int n_out, int n_in, bool has_bias) {
  check_shape(n_out, n_in);
  return std::make_unique<QuantizedLinear>(n_out, n_in, has_bias);
}

py::dict quantized_kinds() {
  py::dict kinds;
  for (const Format& f : formats()) kinds[f.name] = py::make_tuple(f.numbers, f.bytes);
  return kinds;
}

const Format& format_named(const std::string& name) {
  std::string names;
  for (const Format& f : formats()) {
    if (name == f.name) return f;
    names += (names.empty() ? "" : ", ") + std::string(f.name);
  }
  throw std::invalid_argument("no product with weights of kind " + name + ", only " + names);
}

void dequantize_blocks(const std::string& kind, Address blocks, size_t n_blocks, Address out) {
  dequantize(format_named(kind), at<uint8_t>(blocks), n_blocks, at<float>(out));
}

bool quantize_numbers(const std::string& kind, Address numbers, size_t n_blocks, Address out) {
  const Format& format = format_named(kind);
  if (format.encode == nullptr) throw std::invalid_argument("no rule to quantise to " + kind);
  return quantize(format, at<float>(numbers), n_blocks, at<uint8_t>(out));
}

void load_blocks(QuantizedLinear& linear, const std::string& kind, Address rows,
                 ptrdiff_t row_bytes, int first_row, int n_rows) {
  check_rows("weight's ", first_row, n_rows, linear.n_out());
  linear.load_rows(at<uint8_t>(rows), row_bytes, format_named(kind), first_row, n_rows);
}

void quantized_rows(const QuantizedLinear& linear, Address ids, int n, float scale, Address out,
                    ptrdiff_t out_stride) {
  check_range("row", at<int64_t>(ids), n, linear.n_out());
  linear.embed(at<int64_t>(ids), n, scale, at<float>(out), out_stride);
}

void rms_norm(Address x, ptrdiff_t x_stride, Address residual, ptrdiff_t residual_stride,
              Address weight, float eps, int n, int d, Address out, ptrdiff_t out_stride) {
  const NormArgs args = {
      at<float>(x), x_stride, at<float>(residual), residual_stride, at<float>(weight),
      eps,          d,        at<float>(out),      out_stride};
  for_rows(current().rows.rms_norm, args, n, d);
}

void add(Address x, ptrdiff_t x_stride, Address residual, ptrdiff_t residual_stride, int n, int d) {
  const AddArgs args = {at<float>(x), x_stride, at<float>(residual), residual_stride, d};
  for_rows(current().rows.add, args, n, d);
}

void norm_rope(Address x, ptrdiff_t token_stride, ptrdiff_t head_stride, int n, int heads,
               int head_dim, Address positions, int64_t table_rows, Address cos, Address sin,
               int rotary_half, Address weight, bool norm_all_heads, float eps) {
  RopeArgs args = {};
  args.x = at<float>(x);
  args.token_stride = token_stride;
  args.head_stride = head_stride;
  args.heads = heads;
  args.head_dim = head_dim;
  args.positions = at<int64_t>(positions);
  args.cos = at<float>(cos);
  args.sin = at<float>(sin);
  args.table_stride = rotary_half;
  args.rotary_half = rotary_half;
  args.weight = at<float>(weight);
  args.norm_all_heads = norm_all_heads;
  args.eps = eps;
  if (args.cos != nullptr) check_range("position", args.positions, n, table_rows);
  for_rows(current().rows.norm_rope, args, n, heads * head_dim);
}

void gated(Address gate_up, ptrdiff_t gate_up_stride, int n, int d, bool gelu, Address out,
           ptrdiff_t out_stride) {
  const GatedArgs args = {
      at<float>(gate_up), gate_up_stride, d, gelu ? Activation::kGeluTanh : Activation::kSilu,
      at<float>(out),     out_stride};
  for_rows(current().rows.gated, args, n, 2 * d);
}

void embed(Address ids, int n, Address table, bool bfloat16, ptrdiff_t table_stride,
           int64_t vocabulary, int d, float scale, Address out, ptrdiff_t out_stride) {
  const EmbedArgs args = {
      at<int64_t>(ids), at<void>(table), storage_of(bfloat16), table_stride, d, scale,
      at<float>(out),   out_stride};
  check_range("token id", args.ids, n, vocabulary);
  for_rows(current().rows.embed, args, n, d);
}

void argmax(Address logits, ptrdiff_t stride, int n, int d, Address out) {
  const ArgmaxArgs args = {at<float>(logits), stride, d, at<int64_t>(out)};
  for_rows(current().rows.argmax, args, n, d);
}

void log_prob(Address logits, ptrdiff_t stride, int n, int d, Address best, Address targets,
              Address out) {
  const LogProbArgs args = {at<float>(logits),    stride,        d, at<int64_t>(best),
                            at<int64_t>(targets), at<float>(out)};
  check_range("target", args.targets, n, d);
  for_rows(current().rows.log_prob, args, n, d);
}

class PageCache {
 public:
  PageCache(Address keys, Address values, int n_pages, bool bfloat16, int kv_heads, int head_dim)
      : cache_{at<void>(keys),       at<void>(values), n_pages,
               storage_of(bfloat16), kv_heads,         head_dim} {}

  void write(Address key, ptrdiff_t key_token, ptrdiff_t key_head, Address value,
             ptrdiff_t value_token, ptrdiff_t value_head, Address slots, int n) const {
    check_range("slot", at<int64_t>(slots), n, int64_t{cache_.n_pages} * kPanel);
    write_cache({at<float>(key), key_token, key_head, at<float>(value), value_token, value_head,
                 at<int64_t>(slots), n},
                cache_);
  }

  void attend(Address query, ptrdiff_t token_stride, ptrdiff_t head_stride, int tokens, Address out,
              int heads, int sequences, Address cu_seqlens_q, Address seq_lens,
              Address block_tables, ptrdiff_t block_table_stride, int block_table_width, int window,
              float scale, float softcap) const {
    const Step step = {at<float>(query),
                       token_stride,
                       head_stride,
                       tokens,
                       at<float>(out),
                       heads,
                       sequences,
                       at<int32_t>(cu_seqlens_q),
                       at<int32_t>(seq_lens),
                       at<int32_t>(block_tables),
                       block_table_stride,
                       block_table_width,
                       window,
                       scale,
                       softcap};
    check(step, cache_);
    cpu::attend(step, cache_);
  }

 private:
  Cache cache_;
};

}  // namespace
}  // namespace flipfast::cpu

PYBIND11_MODULE(_cpu, m) {
  using namespace flipfast::cpu;
  m.doc() = "Products, attention and row operations on the CPU; callers check shapes and dtypes.";
  m.def("isas", &isas, "Instruction sets that this CPU has, best first.");
  m.def("isa", [] { return current().name; }, "What new products and all other calls use.");
  m.def("set_isa", &set_isa, py::arg("name"), "ValueError names the choices.");
  m.def("threads", &threads);
  m.def("set_threads", &py_set_threads, py::arg("n"));

  py::class_<PackedLinear>(m, "PackedLinear", "y = x @ weight.T + bias; the weight in panels.")
      .def(py::init(&make_linear), py::arg("n_out"), py::arg("n_in"), py::arg("storage"),
           py::arg("compute") = "float32", py::arg("has_bias") = false)
      .def_property_readonly("nbytes", &PackedLinear::nbytes)
      .def_property_readonly("storage",
                             [](const PackedLinear& linear) {
                               return linear.storage() == Storage::kFloat32 ? "float32"
                                                                            : "bfloat16";
                             })
      .def("load_rows", &load_rows, Unlocked())
      .def("load_bias", &load_bias<PackedLinear>, Unlocked())
      .def("widen", &PackedLinear::widen, Unlocked())
      .def("forward", &forward<PackedLinear>, Unlocked());

  m.def("quantized_kinds", &quantized_kinds, "Numbers and bytes of a block, by the kind's name.");
  m.def("dequantize", &dequantize_blocks, "Blocks to float32, in a row.", Unlocked());
  m.def("quantize", &quantize_numbers, "Float32 to blocks; whether all were finite.", Unlocked());
  py::class_<QuantizedLinear>(m, "QuantizedLinear", "y = x @ weight.T + bias; blocks of GGUF's.")
      .def(py::init(&make_quantized), py::arg("n_out"), py::arg("n_in"),
           py::arg("has_bias") = false)
      .def_property_readonly("nbytes", &QuantizedLinear::nbytes)
      .def("load_rows", &load_blocks, Unlocked())
      .def("load_bias", &load_bias<QuantizedLinear>, Unlocked())
      .def("forward", &forward<QuantizedLinear>, Unlocked())
      .def("embed", &quantized_rows, Unlocked());

  m.def("rms_norm", &rms_norm, Unlocked());
  m.def("add", &add, Unlocked());
  m.def("norm_rope", &norm_rope, Unlocked());
  m.def("gated", &gated, Unlocked());
  m.def("embed", &embed, Unlocked());
  m.def("argmax", &argmax, Unlocked());
  m.def("log_prob", &log_prob, Unlocked());

  py::class_<PageCache>(m, "PageCache", "Key and value pages of one layer, owned by the caller.")
      .def(py::init<Address, Address, int, bool, int, int>())
      .def("write", &PageCache::write, Unlocked())
      .def("attend", &PageCache::attend, Unlocked());
}
