// Adds the diagrams to the module.
#pragma once

#include <pybind11/pybind11.h>

void bind_diagram(pybind11::module_& m);
