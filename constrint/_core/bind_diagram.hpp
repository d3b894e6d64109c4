// Python bindings of the diagrams: constrint._core_native.Diagram.
#pragma once

#include "bind.hpp"

#include <memory>
#include <optional>
#include <tuple>

#include "diagram.hpp"

namespace constrint {

namespace py = pybind11;

namespace {

// Operator, operands, start, coefficients, rows, span; see residual.py.
using TermTuple = std::tuple<int, std::vector<int>, int64_t, std::vector<int64_t>, std::vector<int64_t>,
                             std::tuple<int64_t, int64_t, int>>;
using ChoicesTuple = std::tuple<std::vector<int64_t>, int64_t, int64_t, uint32_t>;

std::unique_ptr<Diagram> make(const std::vector<std::vector<TermTuple>>& constraints,
                              const std::vector<ChoicesTuple>& domains, uint64_t limit, double seconds) {
    py::gil_scoped_release free;
    std::vector<Layers> layers;
    for (const auto& nodes : constraints) {
        std::vector<Term> terms;
        for (const auto& [op, args, start, coefs, rows, span] : nodes)
            terms.push_back({static_cast<Op>(op), args, start, coefs, rows,
                             {std::get<0>(span), std::get<1>(span), std::get<2>(span)}});
        layers.emplace_back(std::move(terms));
    }
    std::vector<Choices> choices;
    for (const auto& [values, low, step, count] : domains) choices.push_back({values, low, step, count});
    Watch watch(seconds, check_signals);
    return std::make_unique<Diagram>(std::move(layers), std::move(choices), limit, watch);
}

// Of each layer, where the runs of its nodes begin, and start, stop and child of every run.
using LayerTuple = std::tuple<std::vector<uint64_t>, std::vector<int64_t>>;

std::vector<LayerTuple> layers_of(const Diagram& diagram) {
    std::vector<LayerTuple> result;
    for (const Layer& layer : diagram.layers()) {
        std::vector<int64_t> runs;
        for (const Run& run : layer.runs) runs.insert(runs.end(), {run.start, run.stop, run.child});
        result.emplace_back(std::vector<uint64_t>(layer.begin.begin(), layer.begin.end()), std::move(runs));
    }
    return result;
}

std::unique_ptr<Diagram> restore(const std::vector<ChoicesTuple>& domains, const std::vector<LayerTuple>& given,
                                 int32_t root, uint64_t steps) {
    std::vector<Choices> choices;
    for (const auto& [values, low, step, count] : domains) choices.push_back({values, low, step, count});
    std::vector<Layer> layers;
    for (const auto& [begin, runs] : given) {
        if (begin.empty() || runs.size() % 3) throw py::value_error("these are not the layers of a diagram");
        Layer layer;
        layer.begin.assign(begin.begin(), begin.end());
        for (size_t i = 0; i < runs.size(); i += 3)
            layer.runs.push_back({static_cast<uint32_t>(runs[i]), static_cast<uint32_t>(runs[i + 1]),
                                  static_cast<int32_t>(runs[i + 2])});
        layers.push_back(std::move(layer));
    }
    return std::make_unique<Diagram>(std::move(choices), std::move(layers), root, steps);
}

std::vector<ChoicesTuple> domains_of(const Diagram& diagram) {
    std::vector<ChoicesTuple> result;
    for (const Choices& own : diagram.domains()) result.emplace_back(own.values, own.low, own.step, own.count);
    return result;
}

std::tuple<uint64_t, uint64_t> halves(Total total) {
    return {static_cast<uint64_t>(total >> 64), static_cast<uint64_t>(total)};
}

std::vector<int64_t> decode(const Diagram& diagram, const std::vector<uint64_t>& high,
                            const std::vector<uint64_t>& low) {
    std::vector<Total> indices;
    if (!high.empty() && high.size() != low.size()) throw py::value_error("as many high halves as low ones, or none");
    for (size_t i = 0; i < low.size(); ++i) {
        indices.push_back((high.empty() ? 0 : static_cast<Total>(high[i]) << 64) | low[i]);
        if (indices.back() >= diagram.total()) throw py::index_error("an index beyond the last solution");
    }
    std::vector<int64_t> rows(indices.size() * diagram.width());
    py::gil_scoped_release free;
    Watch watch(-1, check_signals);
    diagram.decode(indices, rows.data(), watch);
    return rows;
}

std::optional<std::tuple<uint64_t, uint64_t>> index_of(const Diagram& diagram, const std::vector<int64_t>& values) {
    Total result;
    if (values.size() != diagram.width() || !diagram.index(values, result)) return std::nullopt;
    return halves(result);
}

py::buffer_info view(const py::buffer& column, bool writable, Total least) {
    py::buffer_info info = column.request(writable);
    ssize_t bytes = info.itemsize;
    if (info.ndim != 1 || (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8) ||
        (info.size > 1 && info.strides[0] != bytes) || static_cast<Total>(info.size) < least)
        throw py::value_error("a column must be contiguous integers, with room for every solution");
    return info;
}

void fill(const Diagram& diagram, const std::vector<py::buffer>& columns, double seconds, uint64_t first,
          uint64_t count, std::vector<std::vector<int64_t>> values) {
    std::vector<py::buffer_info> views;
    Columns table;
    for (const py::buffer& column : columns) {
        views.push_back(view(column, true, count));
        table.places.push_back(views.back().ptr);
        table.bytes = static_cast<size_t>(views.front().itemsize);
        if (views.back().itemsize != views.front().itemsize) throw py::value_error("columns of one width");
    }
    if (columns.size() != diagram.width() || values.size() != diagram.width())
        throw py::value_error("one column a variable");
    if (first + count < first || static_cast<Total>(first) + count > diagram.total())
        throw py::index_error("an index beyond the last solution");
    for (size_t d = 0; d < values.size(); ++d)
        if (!values[d].empty() && values[d].size() != diagram.choices(d)) throw py::value_error("one value a position");
    table.first = first;
    table.count = count;
    table.values = std::move(values);
    py::gil_scoped_release free;
    Watch watch(seconds, check_signals);
    diagram.fill(table, watch);
}

std::tuple<int64_t, std::vector<int64_t>> best_of(const Diagram& diagram, const std::vector<std::vector<int64_t>>& costs,
                                                  const std::vector<size_t>& order, const std::vector<int>& descending,
                                                  double seconds) {
    py::gil_scoped_release free;
    Watch watch(seconds, check_signals);
    std::vector<int64_t> values;
    int64_t value = diagram.best(costs, order, descending, values, watch);
    return {value, std::move(values)};
}

void spread_into(const py::buffer& values, uint64_t inner, const py::buffer& column, double seconds) {
    py::buffer_info from = view(values, false, 0);
    uint64_t count = static_cast<uint64_t>(from.size);
    py::buffer_info to = view(column, true, static_cast<Total>(count) * inner);
    if (from.itemsize != to.itemsize) throw py::value_error("columns of one width");
    py::gil_scoped_release free;
    Watch watch(seconds, check_signals);
    spread(from.ptr, count, inner, to.ptr, static_cast<uint64_t>(to.size), static_cast<size_t>(to.itemsize), watch);
}

}  // namespace

inline void bind_diagram(py::module_& m) {
    m.attr("UNDEFINED") = UNDEFINED;
    py::register_exception<TooLarge>(m, "DiagramTooLarge");
    py::register_exception<DiagramOverflow>(m, "DiagramOverflow");
    py::register_exception<DiagramTimeLimit>(m, "DiagramTimeLimit");
    m.def("spread", &spread_into);
    py::class_<Diagram>(m, "Diagram")
        .def(py::init(&make))
        .def(py::init(&restore))
        .def("layers", &layers_of)
        .def_property_readonly("root", &Diagram::root)
        .def_property_readonly("total", [](const Diagram& diagram) { return halves(diagram.total()); })
        .def_property_readonly("steps", &Diagram::steps)
        .def_property_readonly("size", &Diagram::size)
        .def("trim", &Diagram::trim)
        .def("domains", &domains_of)
        .def("decode", &decode)
        .def("index", &index_of)
        .def("best", &best_of)
        .def("fill", &fill);
}

}  // namespace constrint
