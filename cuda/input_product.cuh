// The product of W and a step's input x, for kernels that multiply their input themselves: as R, W is a stationary matrix
// whose rows are gates of units, and as h, x lies in shared memory as a moving matrix. Its sums are float32 and never rounded.
//
// x comes through a ring of stages (input_ring.cuh). The product of step t + 1 needs no h(t): it is made while step t waits
// for other things, and the recurrent product of a gate that has both begins with its sum.
#pragma once

#include "forward_step.cuh"
#include "input_ring.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// A warp's part of W, and its product with x. As for R, `k_split` warps share the same units, each with a part of x.
template <class Cell, class Type, FixedShape shape, int units, int rows, int k_split, int k_tiles_in_registers, int threads>
struct InputProduct {
    static constexpr int inputs = shape.inputs;
    using Rows = GateRows<Cell, units, Cell::input>;
    static constexpr int tiles = Rows::tiles;
    static constexpr int k_tiles = ceil_div(ceil_div(inputs, k_tile_depth<Type>), k_split);  // of x, per warp
    static constexpr int padded_inputs = k_tile_depth<Type> * k_tiles * k_split;
    static constexpr bool padded = padded_inputs != inputs;  // then a stage has words that no copy reaches, and that must be zeros
    using Layout = MovingLayout<rows, Type>;
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, k_tiles_in_registers, rows, 1>;
    using Sums = typename Matrix::Sums;

    // The tiles of which a gate has no recurrent product, one bit each: no other product begins with their sums.
    static constexpr unsigned apart = Rows::tiles_of(~Cell::recurrent);
    static constexpr int apart_tiles = count_bits(apart);

    // A stage holds x of one step, laid out as the moving matrix.
    using Ring = InputRing<Type, FixedShape{.heads = 1, .head_dim = inputs}, 1, rows, threads, element_bytes<Type> * padded_inputs>;
    static_assert(Ring::stage_bytes == Layout::bytes(padded_inputs), "a stage is a moving matrix");

    Matrix matrix;

    /// Load this lane's part of W [G_in, H, D, I]. `at`: this warp's shared memory, of Matrix::shared_bytes.
    TILESMITH_DEVICE void load(const Element<Type>* w, SharedAddress at, int head, int first_unit, int part, int lane) {
        matrix.load_in_turn(at, lane, [&](int tile, int k_tile, int upper) {
            const int k = (part * k_tiles + k_tile) * k_tile_depth<Type> + lane % 4 * chunk_elements<Type>;
            return Rows::template load<shape, inputs>(w, head, first_unit, tile * 16 + upper * 8 + lane / 4, k);
        });
    }

    /// sums = this part of W times x in a stage, and the biases of the gates with an input.
    TILESMITH_DEVICE void multiply(Sums& sums, SharedAddress stage, int part, int lane,
                                   const float (&bias)[Cell::gates][units / 8]) const {
        matrix.multiply_in_turn(sums, stage, part * k_tiles * 4, lane, [&](int tile, int, int i) {
            return Rows::of_row(tile, i / 2, [&](int gate, int unit_group) { return bias[gate][unit_group]; });
        });
    }

    /// Point a ring's copies at x [B, T, I]. source(row): where x of a sequence of the block begins.
    template <class Source>
    TILESMITH_DEVICE static void prepare(Ring& ring, SharedAddress at, Source source) {
        ring.prepare_places([&](int, int row, int k) { return source(row) + k; },
                            [&](int, int row, int k) { return at + Layout::place(k, row); });
    }
};

/// What stands in its place where a kernel reads the product of its input, through `WxRing`.
template <class WxRing, bool is_padded>
struct ReadInput {
    using Ring = WxRing;
    static constexpr bool padded = is_padded;
    static constexpr int apart_tiles = 0;
    struct Matrix {
        static constexpr int shared_bytes = 0;
    };
    struct Sums {};
};

}  // namespace tilesmith
