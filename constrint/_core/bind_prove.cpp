// Python bindings of the prover.
#include "bind.hpp"
#include "prove.hpp"

namespace constrint {

namespace py = pybind11;

void bind_prover(py::module_& m) {
    py::class_<Prover>(m, "Prover")
        .def(py::init([](const std::vector<DomainTuple>& domains, const std::vector<CodeTuple>& codes, size_t sources,
                         std::vector<int> source, const std::vector<std::vector<int>>& initial, std::vector<int> order,
                         const std::vector<int>& descending) {
            State state = make_state(domains, codes);
            state.track(sources, std::move(source), initial);
            return std::make_unique<Prover>(std::move(state), std::move(order), descending, check_signals);
        }))
        .def("fixpoint", &Prover::fixpoint, py::call_guard<py::gil_scoped_release>())
        .def("any", &Prover::any, py::call_guard<py::gil_scoped_release>())
        .def("first", &Prover::first, py::call_guard<py::gil_scoped_release>())
        .def("conflict", &Prover::conflict)
        .def("why", &Prover::why)
        .def("bounds", [](const Prover& prover, int v) {
            return std::make_tuple(prover.state().low[v], prover.state().high[v]);
        })
        .def("values", [](const Prover& prover, int v) { return prover.state().current(v); })
        .def("entailed", [](const Prover& prover, int number) { return prover.state().entailed(number); });
}

}  // namespace constrint
