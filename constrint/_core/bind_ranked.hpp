// Python bindings of solutions by their places in an order of the variables.
#pragma once

#include <algorithm>
#include <tuple>

#include "bind.hpp"
#include "ranked.hpp"

namespace constrint {

namespace py = pybind11;

namespace {

// turns: diagram, layer, and the number of each position of its domain. into: a column a turn, with room for all ranks.
void ranked_into(const std::vector<const Diagram*>& factors,
                 const std::vector<std::tuple<size_t, size_t, std::vector<int64_t>>>& given,
                 const std::vector<uint64_t>& ranks, const std::vector<py::buffer>& into) {
    Total total = 1;
    size_t layers = 0;
    for (const Diagram* diagram : factors) {
        layers += diagram->width();
        if (__builtin_mul_overflow(total, diagram->total(), &total) || total > INT64_MAX)
            throw py::value_error("more solutions than 63 bits count");
    }
    std::vector<Turn> turns;
    std::vector<std::tuple<size_t, size_t>> named;
    for (const auto& [factor, layer, numbers] : given) {
        if (factor >= factors.size() || layer >= factors[factor]->width()) throw py::index_error("no such layer");
        if (numbers.size() != factors[factor]->choices(layer)) throw py::value_error("one number a position");
        named.emplace_back(factor, layer);
        turns.push_back({factor, layer, numbers});
    }
    std::sort(named.begin(), named.end());
    if (named.size() != layers || std::adjacent_find(named.begin(), named.end()) != named.end())
        throw py::value_error("each layer once");
    if (!ranks.empty() && *std::max_element(ranks.begin(), ranks.end()) >= total)
        throw py::index_error("a rank beyond the last solution");
    std::vector<int64_t*> places;
    for (const py::buffer& column : into) {
        py::buffer_info info = column.request(true);
        if (info.ndim != 1 || info.itemsize != 8 || (info.size > 1 && info.strides[0] != 8) ||
            static_cast<size_t>(info.size) < ranks.size())
            throw py::value_error("a column must be contiguous integers of 64 bits, with room for every rank");
        places.push_back(static_cast<int64_t*>(info.ptr));
    }
    if (places.size() != turns.size()) throw py::value_error("one column a turn");
    py::gil_scoped_release free;
    Watch watch(-1, check_signals);
    std::vector<int64_t> columns = ranked(factors, turns, ranks, watch);
    for (size_t k = 0; k < places.size(); ++k)
        std::copy_n(columns.data() + k * ranks.size(), ranks.size(), places[k]);
}

}  // namespace

inline void bind_ranked(py::module_& m) { m.def("ranked", &ranked_into); }

}  // namespace constrint
