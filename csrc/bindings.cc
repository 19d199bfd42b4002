// Python bindings of flipfast._core: the text core and the drafter. Only files named bindings.cc
// use pybind11.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "draft/drafter.h"
#include "metrics/overlap.h"
#include "text/extract.h"
#include "text/normalize.h"
#include "text/word_hash.h"

namespace py = pybind11;

namespace flipfast {
namespace {

Text view(PyObject* string) {
#if PY_VERSION_HEX < 0x030C0000  // before 3.12 a string may not be in its final form yet
  if (PyUnicode_READY(string) != 0) throw py::error_already_set();
#endif
  return {PyUnicode_DATA(string), static_cast<size_t>(PyUnicode_GET_LENGTH(string)),
          static_cast<int>(PyUnicode_KIND(string)), PyUnicode_IS_ASCII(string) != 0};
}

py::object str_lower(PyObject* string) {
  return py::handle(reinterpret_cast<PyObject*>(&PyUnicode_Type)).attr("lower")(py::handle(string));
}

// Borrows the text of a row. If a lower-cased copy is needed, `owned` keeps it.
Text view_row(const py::tuple& rows, size_t row, std::vector<py::object>* owned) {
  PyObject* const string = PyTuple_GET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(row));
  if (!PyUnicode_Check(string)) {
    throw py::type_error("row " + std::to_string(row) + " is " + Py_TYPE(string)->tp_name +
                         ", not str");
  }
  const Text text = view(string);
  if (!needs_python_lower(text)) return text;
  owned->push_back(str_lower(string));
  return view(owned->back().ptr());
}

py::array_t<double> py_overlap_f1(const py::tuple& predictions, const py::tuple& references,
                                  size_t threads) {
  if (predictions.size() != references.size()) {
    throw py::value_error(std::to_string(predictions.size()) + " predictions but " +
                          std::to_string(references.size()) + " references");
  }
  std::vector<py::object> owned;
  std::vector<Pair> pairs;
  pairs.reserve(predictions.size());
  for (size_t row = 0; row < predictions.size(); ++row) {
    pairs.push_back({view_row(predictions, row, &owned), view_row(references, row, &owned)});
  }
  py::array_t<double> scores({static_cast<py::ssize_t>(pairs.size()), py::ssize_t{3}});
  static_assert(sizeof(Score) == 3 * sizeof(double), "a Score is one row of the array");
  Score* const out = reinterpret_cast<Score*>(scores.mutable_data());
  {
    const py::gil_scoped_release unlocked;  // the tuples and `owned` keep every text alive
    overlap_f1(pairs, threads, out);
  }
  return scores;
}

template <typename T>
py::array_t<T> as_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple py_word_hashes(const py::tuple& texts) {
  std::vector<py::object> owned;
  std::vector<Text> views;
  views.reserve(texts.size());
  for (size_t row = 0; row < texts.size(); ++row) views.push_back(view_row(texts, row, &owned));
  WordHashes words;
  {
    const py::gil_scoped_release unlocked;  // the tuple and `owned` keep every text alive
    words = word_hashes(views);
  }
  return py::make_tuple(as_array(words.hashes), as_array(words.copies), as_array(words.offsets),
                        as_array(words.n_words));
}

void feed_scanner(ObjectScanner* scanner, const py::bytes& data) {
  scanner->feed(PyBytes_AS_STRING(data.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(data.ptr())));
}

void bind_scanner(py::module_& module) {
  const auto as_index = [](size_t at) {
    return at == ObjectScanner::kNone ? py::ssize_t{-1} : static_cast<py::ssize_t>(at);
  };
  py::class_<ObjectScanner>(module, "ObjectScanner",
                            "Follows a growing output up to where its instruction is closed.")
      .def(py::init<>())
      .def("feed", &feed_scanner, py::arg("data"))
      .def_property_readonly("closed", &ObjectScanner::closed)
      .def_property_readonly("dead", &ObjectScanner::dead)
      .def_property_readonly("start", [=](const ObjectScanner& s) { return as_index(s.start()); })
      .def_property_readonly("end", [=](const ObjectScanner& s) { return as_index(s.end()); });
}

py::list propose(Drafter& drafter, const std::vector<int64_t>& handles,
                 const std::vector<int32_t>& limits, float threshold) {
  std::vector<Proposal> found;
  {
    const py::gil_scoped_release unlocked;
    found = drafter.propose(handles, limits, threshold);
  }
  py::list drafts;
  for (const Proposal& draft : found) drafts.append(py::make_tuple(draft.tokens, draft.chances));
  return drafts;
}

void bind_drafter(py::module_& module) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<Drafter>(module, "Drafter",
                      "Proposes the next tokens of growing outputs. Any thread may call it.")
      .def(py::init<int>(), py::arg("max_draft"))
      .def("open", &Drafter::open, py::arg("sources"), py::arg("start") = std::vector<int32_t>{},
           Unlocked(), "A handle for an output that may repeat the sources, likeliest first.")
      .def("extend", &Drafter::extend, py::arg("handles"), py::arg("tokens"), Unlocked(),
           "Tokens that the outputs have got since.")
      .def("propose", &propose, py::arg("handles"), py::arg("limits"), py::arg("threshold"),
           "Drafts: tokens, and the chances of each.")
      .def("close", &Drafter::close, py::arg("handle"), py::arg("learn"), Unlocked(),
           "Forget an output; with learn others may repeat it.");
}

}  // namespace
}  // namespace flipfast

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ text core of flipfast.";
  m.def("overlap_f1", &flipfast::py_overlap_f1, py::arg("predictions"), py::arg("references"),
        py::arg("threads") = 0,
        "Word-level F1, precision and recall of each row: float64 (N, 3). GIL released.");
  m.def("word_hashes", &flipfast::py_word_hashes, py::arg("texts"),
        "The distinct words of each text as hashes: int64 hashes, sorted by text and hash, int32 "
        "copies, int32 offsets (N + 1,), int32 words of each text (N,). GIL released.");
  flipfast::bind_drafter(m);
  flipfast::bind_scanner(m);
}
