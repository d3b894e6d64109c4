// Which elements of a block's tile a lane owns: the layout that the accumulators of m16n8k16 give, shared by the
// schedules whose blocks each run a tile of the batch of one head.
//
// Lanes: g = lane / 4, j = lane % 4. Of every 8 units of its warp a lane has unit g, of every 8 sequences 2j and 2j + 1;
// or, where the tile is 4 sequences, which half fill a matrix tile (its even columns), sequence j alone.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// The elements of one lane: [unit group][column tile][column], for warps of `units` and blocks of `rows` sequences.
/// owned: the units of all warps of a head, padding included. ordered: whether sequences do not come one after another.
template <FixedShape shape, int units, int rows, int owned = ceil_div(shape.head_dim, units) * units, bool ordered = false>
struct LaneElements {
    static constexpr int D = shape.head_dim;
    static constexpr bool half_filled = rows == 4;
    static constexpr int unit_groups = units / 8;
    static constexpr int column_tiles = half_filled ? 1 : rows / 8;
    static constexpr int columns = half_filled ? 1 : 2;
    static constexpr bool padded = owned != D;

    static_assert(half_filled || rows % 8 == 0, "a batch tile is 4 or a multiple of 8 sequences");

    int batch;
    int warp;  // among those that own units
    int head;
    int first_row;  // the block's first sequence
    int g;
    int j;
    const int* order = nullptr;  // [batch]: their numbers, if ordered

    /// The unit, within the head, of this lane's unit group.
    TILESMITH_DEVICE int unit(int unit_group) const { return warp * units + unit_group * 8 + g; }

    /// The sequence, within the block, of this lane's column.
    TILESMITH_DEVICE int row(int column_tile, int column) const {
        return half_filled ? j : column_tile * 8 + 2 * j + column;
    }

    /// True if an element is real: neither padding of the head dimension nor past the end of the batch.
    TILESMITH_DEVICE bool real(int unit_group, int column_tile, int column) const {
        return (!padded || unit(unit_group) < D) && first_row + row(column_tile, column) < batch;
    }

    /// Index of an element in an array [states, B, H, D].
    TILESMITH_DEVICE long long state_index(int s, int unit_group, int column_tile, int column) const {
        if constexpr (ordered) {
            const int number = static_cast<int>(load_global_32(order + first_row + row(column_tile, column)));
            return ((static_cast<long long>(s) * batch + number) * shape.heads + head) * D + unit(unit_group);
        }
        const long long sequence = static_cast<long long>(s) * batch + first_row + row(column_tile, column);
        return (sequence * shape.heads + head) * D + unit(unit_group);
    }

    /// Calls function(unit_group, column_tile, column) for every element.
    template <class Function>
    TILESMITH_DEVICE static void for_each(Function function) {
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int column = 0; column < columns; ++column) function(unit_group, column_tile, column);
    }
};

/// The biases b [G_bias, H, D] of a lane's units, for the gates that `wanted` marks; zero for the others.
template <class Type, class Cell, FixedShape shape, int units, int rows, int owned, bool ordered>
TILESMITH_DEVICE void load_bias(Real<Type> (&bias)[Cell::gates][units / 8], const Element<Type>* b, unsigned wanted,
                                const LaneElements<shape, units, rows, owned, ordered>& own) {
    constexpr int D = shape.head_dim;
#pragma unroll
    for (int gate = 0; gate < Cell::gates; ++gate)
#pragma unroll
        for (int unit_group = 0; unit_group < units / 8; ++unit_group) {
            bias[gate][unit_group] = 0.0f;
            if (has(Cell::bias, gate) && has(wanted, gate) && own.unit(unit_group) < D)
                bias[gate][unit_group] = to_real<Type>(
                    load_element(b + (rank_among(Cell::bias, gate) * shape.heads + own.head) * D + own.unit(unit_group)));
        }
}

}  // namespace tilesmith
