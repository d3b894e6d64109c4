// The results of a warp's lanes on their way to rows in shared memory: whole 8 x 8 matrices at a time by stmatrix, where
// the target has it and elements are of 16 bits, else one element after the other.
#pragma once

#include "lane_elements.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// How lanes store: stmatrix needs sm_90.
enum class Stores { words, matrices };

/// Stores a value of every element for each of several arrays. A matrix holds 8 units of 8 sequences; or, with 4
/// sequences, which have a lane of their own each, of those the values of two unit groups or arrays, in even and odd rows.
template <class Type, FixedShape shape, int units, int rows, int arrays, Stores how>
struct LaneStores {
    using Elements = LaneElements<shape, units, rows>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;

    // What one lane has for one unit group, of one array and column tile.
    static constexpr int slots = arrays * unit_groups * column_tiles;
    static constexpr int per_matrix = Elements::half_filled ? 2 : 1;
    static constexpr int matrices = how == Stores::matrices && element_bytes<Type> == 2 ? slots / per_matrix : 0;
    static constexpr int instructions = matrices / 4 + matrices % 4 / 2 + matrices % 2;  // of 4, 2 and 1
    SharedAddress to[instructions > 0 ? instructions : 1];  // of the row that this lane points at

    TILESMITH_DEVICE static constexpr int array_of(int slot) { return slot / (unit_groups * column_tiles); }
    TILESMITH_DEVICE static constexpr int unit_group_of(int slot) { return slot / column_tiles % unit_groups; }
    TILESMITH_DEVICE static constexpr int column_tile_of(int slot) { return slot % column_tiles; }
    TILESMITH_DEVICE static constexpr int first_matrix(int i) {
        return i <= matrices / 4 ? 4 * i : matrices / 4 * 4 + 2;
    }

    /// locate(array, row, unit): where a value goes in shared memory; 8 units are 16 bytes in a row.
    template <class Own, class Locate>
    TILESMITH_DEVICE void prepare(const Own& own, int lane, Locate locate) {
#pragma unroll
        for (int i = 0; i < instructions; ++i) {
            const int matrix = minimum(first_matrix(i) + lane / 8, matrices - 1);
            const int slot = per_matrix * matrix + (per_matrix == 2 ? lane % 2 : 0);
            const int row = per_matrix == 2 ? lane % 8 / 2 : 8 * column_tile_of(slot) + lane % 8;
            to[i] = locate(array_of(slot), row, own.warp * units + 8 * unit_group_of(slot));
        }
    }

    /// Store value(array, unit_group, column_tile, column) of all, `offset` bytes from where `locate` says.
    template <class Own, class Value, class Locate>
    TILESMITH_DEVICE void store(const Own& own, int offset, Value value, Locate locate) const {
        if constexpr (instructions > 0) {
            const auto packed = [&](int matrix) {
                const int slot = per_matrix * matrix, next = per_matrix == 2 ? slot + 1 : slot;
                return pack<Type>(value(array_of(slot), unit_group_of(slot), column_tile_of(slot), 0),
                                  value(array_of(next), unit_group_of(next), column_tile_of(next), per_matrix == 2 ? 0 : 1));
            };
#pragma unroll
            for (int i = 0; i < instructions; ++i) {
                const int matrix = first_matrix(i);
                if (i < matrices / 4) {
                    const unsigned words[4] = {packed(matrix), packed(matrix + 1), packed(matrix + 2), packed(matrix + 3)};
                    stmatrix_x4_trans(to[i] + offset, words);
                } else if (i == matrices / 4 && matrices % 4 >= 2) {
                    const unsigned words[2] = {packed(matrix), packed(matrix + 1)};
                    stmatrix_x2_trans(to[i] + offset, words);
                } else {
                    stmatrix_x1_trans(to[i] + offset, packed(matrix));
                }
            }
        }
#pragma unroll
        for (int slot = per_matrix * matrices; slot < slots; ++slot)
#pragma unroll
            for (int column = 0; column < columns; ++column) {
                const int array = array_of(slot), unit_group = unit_group_of(slot), column_tile = column_tile_of(slot);
                store_shared_element<Type>(locate(array, own.row(column_tile, column), own.unit(unit_group)) + offset,
                                           value(array, unit_group, column_tile, column));
            }
    }
};

}  // namespace tilesmith
