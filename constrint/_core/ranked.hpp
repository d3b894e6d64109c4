// Solutions by their places in an order of the variables other than their diagrams': the twin of ranked.py.
#pragma once

#include <cstdint>
#include <vector>

#include "diagram.hpp"

namespace constrint {

// A variable in its turn: the diagram and the layer that have it, and the number that stands for each position of its
// domain. Largest numbers come first.
struct Turn {
    size_t factor, layer;
    std::vector<int64_t> numbers;
};

// Of the solutions over the variables of all diagrams, listed in lexicographic order of ``turns``, which name every
// variable, those at ``ranks``: the number of each turn's value, column by column. There must be fewer than 2^63
// solutions.
std::vector<int64_t> ranked(const std::vector<const Diagram*>& factors, const std::vector<Turn>& turns,
                            const std::vector<uint64_t>& ranks, Watch& watch);

}  // namespace constrint
