// The drafter as a class of flipfast._core; knows pybind11.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "draft/drafter.h"

namespace py = pybind11;

namespace flipfast {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
std::vector<T> values_of(const Array<T>& array) {
  if (array.ndim() != 1) {
    throw std::invalid_argument("an array of " + std::to_string(array.ndim()) +
                                " dimensions where 1 is needed");
  }
  return {array.data(), array.data() + array.size()};
}

template <typename T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

void extend(Drafter& drafter, const Array<int64_t>& handles, const Array<int32_t>& tokens,
            const Array<int64_t>& offsets) {
  const auto outputs = values_of(handles);
  const auto added = values_of(tokens);
  const auto bounds = values_of(offsets);
  const py::gil_scoped_release unlocked;
  drafter.extend(outputs, added, bounds);
}

py::tuple propose(Drafter& drafter, const Array<int64_t>& handles, const Array<int32_t>& limits,
                  const Array<float>& thresholds) {
  const auto outputs = values_of(handles);
  const auto most = values_of(limits);
  const auto lowest = values_of(thresholds);
  Proposals found;
  {
    const py::gil_scoped_release unlocked;
    found = drafter.propose(outputs, most, lowest);
  }
  return py::make_tuple(array_of(found.tokens), array_of(found.offsets), array_of(found.chances));
}

}  // namespace

void bind_drafter(py::module_& module) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  py::class_<Drafter>(module, "Drafter",
                      "Proposes the next tokens of growing outputs. Any thread may call it.")
      .def(py::init<int>(), py::arg("max_draft"))
      .def("open", &Drafter::open, py::arg("sources"), py::arg("start") = std::vector<int32_t>{},
           Unlocked(), "A handle for an output that may repeat the sources, likeliest first.")
      .def("extend", &extend, py::arg("handles").noconvert(), py::arg("tokens").noconvert(),
           py::arg("offsets").noconvert(), "Tokens that the outputs have got since.")
      .def("propose", &propose, py::arg("handles").noconvert(), py::arg("limits").noconvert(),
           py::arg("thresholds").noconvert(), "Drafts: tokens, offsets and chances.")
      .def("close", &Drafter::close, py::arg("handle"), py::arg("learn"), Unlocked(),
           "Forget an output; with learn others may repeat it.");
}

}  // namespace flipfast
