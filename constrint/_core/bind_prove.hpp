// Python bindings of the prover.
#pragma once

#include "bind.hpp"
#include "prove.hpp"

namespace constrint {

namespace py = pybind11;

inline void bind_prover(py::module_& m) {
    py::register_exception<TooWide>(m, "CoreTooWide");
    py::class_<Prover>(m, "Prover")
        .def(py::init([](const std::vector<DomainTuple>& domains, const std::vector<CodeTuple>& codes,
                         const std::vector<RuleTuple>& rules, size_t sources,
                         std::vector<int> source, const std::vector<std::vector<int>>& initial, std::vector<int> order,
                         const std::vector<int>& descending) {
            State state = make_state(domains, codes, rules);
            state.track(sources, std::move(source), initial);
            return std::make_unique<Prover>(std::move(state), std::move(order), descending, check_signals);
        }))
        .def("fixpoint", &Prover::fixpoint, py::call_guard<py::gil_scoped_release>())
        .def("any", &Prover::any, py::call_guard<py::gil_scoped_release>())
        .def("first", &Prover::first, py::call_guard<py::gil_scoped_release>())
        .def("conflict", &Prover::conflict)
        .def_readwrite("weight", &Prover::weight)
        // After fixpoint, of each variable: listed values (none of a range), low, high, and what shaped them.
        .def("root", [](const Prover& prover) {
            const State& state = prover.state();
            std::vector<std::tuple<std::vector<int64_t>, int64_t, int64_t, std::vector<int>>> result;
            for (int v = 0; v < static_cast<int>(state.domains.size()); ++v) {
                auto values = state.domains[v].listed() ? state.current(v) : std::vector<int64_t>{};
                result.emplace_back(std::move(values), state.low[v], state.high[v], prover.why(v));
            }
            return result;
        })
        .def("entailed", [](const Prover& prover, int number) { return prover.state().entailed(number); });
}

}  // namespace constrint
