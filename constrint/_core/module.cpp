// Python bindings of the search: constrint._core_native.
#include "bind.hpp"

#include <memory>

#include "bind_diagram.hpp"
#include "bind_prove.hpp"
#include "bind_race.hpp"
#include "bind_ranked.hpp"
#include "bind_rows.hpp"
#include "search.hpp"

namespace py = pybind11;
using namespace constrint;

void constrint::check_signals() {
    py::gil_scoped_acquire locked;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

State constrint::make_state(const std::vector<DomainTuple>& domains, const std::vector<CodeTuple>& codes,
                            const std::vector<RuleTuple>& rules) {
    std::vector<Domain> made;
    for (const auto& [values, low, high, step] : domains) made.push_back({values, low, high, step, 0});
    std::vector<Code> programs;
    for (const auto& [ops, a, b, tables, variables] : codes) {
        Code code;
        for (int op : ops) code.ops.push_back(static_cast<Op>(op));
        code.a = a;
        code.b = b;
        for (const auto& [operands, rows] : tables) code.tables.push_back({operands, rows});
        code.variables = variables;
        programs.push_back(std::move(code));
    }
    std::vector<Rule> ruled;
    for (const auto& [variables, offsets, durations, demands, capacity, why] : rules)
        ruled.push_back({variables, offsets, durations, demands, capacity, why});
    return {std::move(made), std::move(programs), std::move(ruled)};
}

namespace {

std::unique_ptr<Search> make_search(const std::vector<DomainTuple>& domains, const std::vector<CodeTuple>& codes,
                                    const std::vector<RuleTuple>& rules, std::vector<int> order, std::vector<int> descending,
                                    std::vector<std::optional<std::vector<int>>> frontier) {
    return std::make_unique<Search>(make_state(domains, codes, rules),
                                    Plan{std::move(order), std::move(descending), std::move(frontier)}, check_signals);
}

}  // namespace

PYBIND11_MODULE(_core_native, m) {
    m.doc() = "The search of constrint in C++; see constrint/native.py.";
    m.attr("SOURCES") = CONSTRINT_SOURCES;  // the digest of what this is built from; see core.py
    // Where the last operator lies: Python and C++ must number them alike.
    m.attr("LAST_OP") = static_cast<int>(NOT_TABLE);
    bind_diagram(m);
    py::register_exception<TimeLimit>(m, "CoreTimeLimit");
    py::register_exception<CountOverflow>(m, "CoreCountOverflow");
    bind_prover(m);
    bind_race(m);
    bind_ranked(m);
    bind_rows(m);
    py::class_<Search>(m, "Search")
        .def(py::init(&make_search))
        .def("solutions", &Search::solutions, py::call_guard<py::gil_scoped_release>())
        .def("probe", &Search::probe, py::call_guard<py::gil_scoped_release>())
        .def("count",
             [](Search& search, double seconds) {
                 Count total;
                 {
                     py::gil_scoped_release free;
                     total = search.count(seconds);
                 }
                 return std::make_tuple(static_cast<uint64_t>(total >> 64), static_cast<uint64_t>(total));
             })
        .def("best", [](Search& search, double seconds) {
            Search::Best best;
            {
                py::gil_scoped_release free;
                best = search.best(seconds);
            }
            return std::make_tuple(best.value, best.solution, best.finished);
        });
}
