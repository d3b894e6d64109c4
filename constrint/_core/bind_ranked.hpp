// Python bindings of solutions by their places in an order of the variables.
#pragma once

#include <algorithm>
#include <tuple>

#include "bind.hpp"
#include "ranked.hpp"

namespace constrint {

namespace py = pybind11;

namespace {

// turns: diagram, layer, and the positions of its domain in order. The positions of the values of each turn, row by row.
std::vector<uint32_t> ranked_of(const std::vector<const Diagram*>& factors,
                                const std::vector<std::tuple<size_t, size_t, std::vector<uint32_t>>>& given,
                                const std::vector<uint64_t>& ranks) {
    Total total = 1;
    size_t layers = 0;
    for (const Diagram* diagram : factors) {
        layers += diagram->width();
        if (__builtin_mul_overflow(total, diagram->total(), &total) || total > INT64_MAX)
            throw py::value_error("more solutions than 63 bits count");
    }
    std::vector<Turn> turns;
    std::vector<std::tuple<size_t, size_t>> named;
    for (const auto& [factor, layer, order] : given) {
        if (factor >= factors.size() || layer >= factors[factor]->width()) throw py::index_error("no such layer");
        std::vector<uint32_t> known = order;
        std::sort(known.begin(), known.end());
        for (size_t i = 0; i < known.size(); ++i)
            if (known[i] != i) throw py::value_error("each position of a domain once");
        if (known.size() != factors[factor]->choices(layer)) throw py::value_error("each position of a domain once");
        named.emplace_back(factor, layer);
        turns.push_back({factor, layer, order});
    }
    std::sort(named.begin(), named.end());
    if (named.size() != layers || std::adjacent_find(named.begin(), named.end()) != named.end())
        throw py::value_error("each layer once");
    if (!std::is_sorted(ranks.begin(), ranks.end()) || (!ranks.empty() && ranks.back() >= total))
        throw py::index_error("ranks ascend, and end before the last solution");
    py::gil_scoped_release free;
    Watch watch(-1, check_signals);
    return ranked(factors, turns, ranks, watch);
}

}  // namespace

inline void bind_ranked(py::module_& m) { m.def("ranked", &ranked_of); }

}  // namespace constrint
