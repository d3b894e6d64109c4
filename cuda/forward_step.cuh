// What forward kernels share: R (or W) of a head as a stationary matrix whose rows are gates of units, where its products lie,
// and the step of one element.
#pragma once

#include "lane_elements.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// The rows of a warp that owns `units` units with all their gates, in tiles of 16: a tile is two gates of 8 units, or one
/// gate of 16. Only gates with this product have rows: by default the recurrent one.
template <class Cell, int units, unsigned multiplied = Cell::recurrent>
struct GateRows {
    static_assert(units == 8 || units == 16, "a warp owns 8 or 16 units");
    static_assert(multiplied != 0, "a product needs a gate that has it");

    static constexpr int gates = Cell::gates;
    static constexpr int product_gates = count_bits(multiplied);
    static constexpr int tiles = ceil_div(product_gates * units, 16);
    static constexpr int unit_groups = units / 8;

    /// 16 bytes of a matrix [gates, H, D, columns], R or W, from column k on, of row `tile_row` of the warp whose units
    /// begin at `first_unit`; zeros beyond what there is.
    template <FixedShape shape, int columns = shape.head_dim, class Word>
    TILESMITH_DEVICE static uint4 load(const Word* matrix, int head, int first_unit, int tile_row, int k) {
        constexpr int D = shape.head_dim;
        const int gate = tile_row / units;
        const int u = first_unit + tile_row % units;
        const bool valid = gate < product_gates && u < D;
        const long long row = (static_cast<long long>(valid ? gate : 0) * shape.heads + head) * D + (valid ? u : 0);
        return load_chunk_of_row<columns>(matrix + row * columns + (valid ? k : 0), valid ? columns - k : 0);
    }

    /// The tiles that have a row of a gate of `wanted`, one bit each.
    TILESMITH_DEVICE static constexpr unsigned tiles_of(unsigned wanted) {
        unsigned found = 0;
        for (int gate = 0; gate < gates; ++gate)
            if (has(multiplied & wanted, gate)) found |= 1u << (rank_among(multiplied, gate) * units / 16);
        return found;
    }

    /// value(gate, unit_group) of the gate whose row g (upper = 0) or g + 8 (upper = 1) of a tile this is; 0 where there is
    /// none. Every index is a constant: arrays must stay in registers.
    template <class Value>
    TILESMITH_DEVICE static float of_row(int tile, int upper, Value value) {
        const int rank = units == 8 ? 2 * tile + upper : tile;
        float found = 0.0f;
#pragma unroll
        for (int gate = 0; gate < gates; ++gate)
            if (has(multiplied, gate) && rank_among(multiplied, gate) == rank)
                found = value(gate, units == 8 ? 0 : upper);
        return found;
    }

    /// The product of a gate that has one.
    template <class Sums>
    TILESMITH_DEVICE static float product(const Sums& sums, int gate, int unit_group, int column_tile, int column) {
        const int rank = rank_among(multiplied, gate);
        const int tile = units == 8 ? rank / 2 : rank;
        const int upper = units == 8 ? rank % 2 : unit_group;
        return sums[has(multiplied, gate) ? tile : 0][column_tile][2 * upper + column];
    }
};

/// What is written out for every step: h, then the other states, then the gates that are saved.
template <class Cell, Save save>
inline constexpr int result_arrays =
    save == Save::hidden ? 1 : save == Save::states ? Cell::states : Cell::states + count_bits(Cell::saved);

/// The step of one element of `own`, from its gates' sums: new states, of which h is rounded, and results. Where it does
/// not run, for its sequence has ended, the states stay and the results are zeros.
template <class Cell, class Type, Save save, class Elements>
TILESMITH_DEVICE void step_element(const Real<Type> (&gate)[Cell::gates], Real<Type> (&state)[Cell::states],
                                   Real<Type> (&result)[result_arrays<Cell, save>], const Elements& own, int unit_group,
                                   bool runs = true) {
    constexpr int states = Cell::states;
    Real<Type> next[states];
    Cell::step(gate, state, next);
    if (!runs) {
#pragma unroll
        for (int i = 0; i < result_arrays<Cell, save>; ++i) result[i] = 0.0f;
        return;
    }
    if constexpr (Elements::padded)
        if (own.unit(unit_group) >= Elements::D) next[0] = 0.0f;  // padding must stay finite: zeros multiply it
    state[0] = rounded<Type>(next[0]);
    result[0] = next[0];
#pragma unroll
    for (int i = 1; i < states; ++i) {
        state[i] = next[i];
        if constexpr (save != Save::hidden) result[i] = next[i];
    }
    if constexpr (save == Save::gates) {
#pragma unroll
        for (int q = 0; q < Cell::gates; ++q)
            if (has(Cell::saved, q)) result[has(Cell::saved, q) ? states + rank_among(Cell::saved, q) : 0] = gate[q];
    }
}

/// Where an array of results begins; arrays as in result_arrays, of `array_elements` each.
template <class Cell, Save save, class Word>
TILESMITH_DEVICE Word* result_array(const ForwardArgumentsOf<Word>& in, int array, long long array_elements) {
    Word* base = in.states + array * array_elements;
    if (array > 0 && in.others != nullptr) base = in.others + (array - 1) * array_elements;
    if constexpr (save == Save::gates)
        if (array >= Cell::states) base = in.gates + (array - Cell::states) * array_elements;
    return base;
}

/// Write a lane's states after the last step, of the rows whose bits are set.
template <class Type, class Elements, class States>
TILESMITH_DEVICE void store_last(Element<Type>* last, const Elements& own, const States& state, unsigned rows = ~0u) {
    Elements::for_each([&](int unit_group, int column_tile, int column) {
        if (!own.real(unit_group, column_tile, column)) return;
        if (rows != ~0u && (rows >> own.row(column_tile, column) & 1) == 0) return;
        const auto& of_element = state[unit_group][column_tile][column];
#pragma unroll
        for (int s = 0; s < static_cast<int>(sizeof of_element / sizeof of_element[0]); ++s)
            store_element(last + own.state_index(s, unit_group, column_tile, column), to_element<Type>(of_element[s]));
    });
}

}  // namespace tilesmith
