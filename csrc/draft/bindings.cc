// The drafter as a class of flipfast._core; knows pybind11.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "draft/drafter.h"

namespace py = pybind11;

namespace flipfast {
namespace {

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

}  // namespace

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

}  // namespace flipfast
