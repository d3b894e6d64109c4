// The gates' sums of a step that has long been run, recomputed from the h before it: R times h on the tensor cores,
// and the biases; the inputs are added by whoever reads them. Nothing of a backward pass has to be waited for, so that
// this product runs beside the one on its critical path.
#pragma once

#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// A warp's part, of 16 units: the product has a tile of 16 rows for each gate that the backward step reads and that has
/// a recurrent product, so that a gate's value ends in the lane that owns the unit. `k_tiles_in_registers`: of 64 bytes of
/// columns of R each, those that stay in registers; the others lie in shared memory. `bias`: of every gate that the
/// backward step reads, kept by the caller.
template <class Cell, class Type, FixedShape shape, int rows, int k_tiles_in_registers>
struct RecomputedGates {
    static constexpr int D = shape.head_dim;
    static constexpr int units = 16;
    static constexpr unsigned products = Cell::backward_gates & Cell::recurrent;
    static constexpr int k_tiles = products != 0 ? ceil_div(D, k_tile_depth<Type>) : 0;
    static constexpr int padded_k = k_tile_depth<Type> * k_tiles;  // units of h that the product reads; those past D must be finite

    using Elements = LaneElements<shape, units, rows>;
    using Matrix = StationaryMatrix<Type, maximum(1, count_bits(products)), k_tiles, k_tiles_in_registers, rows, 1>;
    using Sums = typename Matrix::Sums;
    static constexpr int shared_bytes = Matrix::shared_bytes;  // per warp

    using Bias = float[Cell::gates][Elements::unit_groups];

    Matrix weights;

    /// Load R. `at`: this warp's shared memory.
    template <class Own>
    TILESMITH_DEVICE void load(const BackwardArgumentsOf<Element<Type>>& in, SharedAddress at, int lane, const Own& own) {
        weights.load(at, lane, [&](int tile, int k_tile, int upper) {
            const int k = k_tile_depth<Type> * k_tile + chunk_elements<Type> * own.j;
            const bool valid = own.unit(upper) < D;
            const long long gate = rank_among(Cell::recurrent, nth_bit(products, tile));
            const long long row = (gate * shape.heads + own.head) * D + (valid ? own.unit(upper) : 0);
            return load_chunk_of_row<D>(in.r + row * D + (valid ? k : 0), valid ? D - k : 0);
        });
    }

    /// Multiply by h, whose sequences are rows of `row_bytes` from `hidden` on.
    template <int row_bytes>
    TILESMITH_DEVICE void multiply(Sums& sums, SharedAddress hidden, int lane, const Bias& bias) const {
        if constexpr (products != 0)
            weights.template multiply<RowLayout<rows, row_bytes>>(
                sums, hidden, 0, lane, [&](int tile, int, int i) { return tile_bias(tile, i / 2, bias); });
    }

    /// The bias of row g (upper = 0) or g + 8 (upper = 1) of a tile. Every index is a constant: the array must stay in
    /// registers.
    TILESMITH_DEVICE static float tile_bias(int tile, int upper, const Bias& bias) {
        float value = 0.0f;
#pragma unroll
        for (int gate = 0; gate < Cell::gates; ++gate)
            if (has(products, gate) && rank_among(products, gate) == tile) value = bias[gate][upper];
        return value;
    }

    /// The sum of a gate without its input.
    TILESMITH_DEVICE static float value(const Sums& sums, int gate, int unit_group, int column_tile, int column,
                                        const Bias& bias) {
        if (!has(products, gate)) return bias[gate][unit_group];
        return sums[has(products, gate) ? rank_among(products, gate) : 0][column_tile][2 * unit_group + column];
    }
};

}  // namespace tilesmith
