// What every binding of constrint._core_native shares. The bindings are headers that module.cpp alone includes: pybind11
// takes long to compile, however little is bound.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "state.hpp"

namespace constrint {

// operands, rows one after the other
using TableTuple = std::tuple<std::vector<int>, std::vector<int64_t>>;
// ops, a, b, tables, variables; see program.py
using CodeTuple =
    std::tuple<std::vector<int>, std::vector<int64_t>, std::vector<int>, std::vector<TableTuple>, std::vector<int>>;
// values (empty: a range), low, high, step
using DomainTuple = std::tuple<std::vector<int64_t>, int64_t, int64_t, int64_t>;

// variables, offsets, durations, demands, capacity, why
using RuleTuple = std::tuple<std::vector<int>, std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>, int64_t,
                             std::vector<int>>;

State make_state(const std::vector<DomainTuple>& domains, const std::vector<CodeTuple>& codes,
                 const std::vector<RuleTuple>& rules);

// Let Ctrl-C through: KeyboardInterrupt leaves the search as an exception.
void check_signals();

}  // namespace constrint
