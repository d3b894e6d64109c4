// Python bindings of a race between engines; see race.py.
#pragma once

#include <pybind11/functional.h>

#include "bind.hpp"
#include "race.hpp"

namespace constrint {

namespace py = pybind11;

inline void bind_race(py::module_& m) {
    py::class_<Race>(m, "Race")
        .def(py::init([](double seconds, py::function wake) {
            return std::make_unique<Race>(seconds, [wake] {
                py::gil_scoped_acquire locked;
                wake();
            });
        }))
        .def("stop", &Race::stop)
        .def("enter", [](Race& race) { Race::current() = &race; })
        .def("leave", [](Race&) { Race::current() = nullptr; });
}

}  // namespace constrint
