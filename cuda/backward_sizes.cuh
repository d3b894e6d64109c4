// How large everything is in a block of a backward kernel: its units and warps, the arrays that a step reads, and what lies
// where in shared memory.
#pragma once

#include "recomputed_gates.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "partial_gradients.cuh"
#include "sequences.cuh"
#include "transposed_weights.cuh"

namespace tilesmith {

/// Who share a head, and how.
enum class Sharing {
    nobody,   // a block has all of it
    cluster,  // the blocks of a cluster have a part of the units each
    grid      // so have any blocks that follow each other; a warp that owns units keeps all it reads and writes to itself
};

/// A block of a backward kernel.
struct BackwardBlock {
    Sharing sharing;
    int blocks;      // that share a head
    int threads;     // of a block, the first warps of which own units
    int rows;        // sequences of a warp that owns units: 4, or a multiple of 8
    int num_stages;  // stages of the ring that holds saved values and gradients
    int unit_groups = 0;  // of 8 units that a block of a grid owns
    int row_groups = 1;   // warps that own the same units, each for `rows` sequences of its own
    int recompute_k_tiles_in_registers = 0;  // k-tiles of columns of R that stay in registers to compute the gates again
};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, BackwardBlock block, int state_gradients, Gates source, Sequences sequences>
struct BackwardSizes {
    // ---- units and warps ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr unsigned inputless_products = Cell::recurrent & ~Cell::input;

    static constexpr bool shared_out = block.sharing != Sharing::nobody;
    static constexpr bool alone = block.sharing == Sharing::grid;  // a warp that owns units
    using Who = typename Either<alone, OneWarp, WholeBlock>::Type;
    static constexpr int blocks = block.blocks;
    /// Gates without an input whose gradients are written out, because no block has all of the h they multiply.
    static constexpr unsigned written_too = shared_out ? inputless_products : 0;
    static constexpr int writes = input_gates + count_bits(written_too);
    static constexpr int threads = block.threads;
    static constexpr int units = alone ? 8 : 16;  // of a warp that owns any
    static constexpr int unit_warps = alone ? block.unit_groups : ceil_div(ceil_div(D, units), blocks);  // of a block, for a row group
    static constexpr int row_groups = block.row_groups;
    static constexpr int padded_units = (alone ? 1 : unit_warps) * units;  // that are stored together
    static constexpr int real_units = shared_out ? padded_units : D;       // of a row in the ring
    static constexpr int k_tiles = ceil_div(recurrent_gates * padded_units, k_tile_depth<Type>);  // k = gate * padded_units + unit

    // Gates whose gradients go to shared memory, of those the ones that the block multiplies from there, and the others.
    static constexpr unsigned stored = (alone ? written_too : Cell::recurrent) | Cell::input;
    static constexpr unsigned multiplied = alone ? 0 : Cell::recurrent;
    static constexpr unsigned staged = stored & ~multiplied;

    static constexpr int rows = block.rows;
    using Elements = LaneElements<shape, units, rows, blocks * unit_warps * units, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;

    static_assert(state_gradients == 1 || state_gradients == states, "gradients of h alone, or of every state");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(alone || (blocks - 1) * padded_units < D, "every block owns units");
    static_assert(alone || row_groups == 1, "warps of a block that share a ring own all of its sequences");

    // ---- what a step reads: arrays of gates' sums or of inputs, of states before the step, of gradients ----
    static constexpr bool recompute = source == Gates::recomputed;
    using Sums = RecomputedGates<Cell, Type, shape, rows, block.recompute_k_tiles_in_registers>;
    static constexpr unsigned gate_arrays = recompute ? Cell::backward_gates & Cell::input : Cell::saved;
    /// Whether a product reads h before a step from the ring.
    static constexpr bool multiplies_hidden = (recompute && Sums::products != 0) || (inputless_products & ~written_too) != 0;
    static constexpr unsigned state_arrays = Cell::backward_states | (multiplies_hidden ? 1u : 0u);
    /// The gates of which a part is no saved sum and no input.
    static constexpr unsigned recomputed_gates = recompute ? Cell::backward_gates : Cell::backward_gates & ~Cell::saved;
    static constexpr int read_gates = count_bits(gate_arrays);
    static constexpr int read_states = count_bits(state_arrays);
    static constexpr int arrays = read_gates + read_states + state_gradients;
    static constexpr int row_units = recompute ? maximum(padded_units, Sums::padded_k) : padded_units;

    // ---- shared memory, of a block or of a warp that keeps to itself: two buffers for the gates' gradients, the ring ----
    static constexpr int element = element_bytes<Type>;
    static constexpr int row_bytes = row_bytes_of<Type, rows>(row_units);
    using Inputless = PartialGradients<Cell, Type, shape, units, rows, row_bytes, inputless_products & ~written_too>;
    using Layout = MovingLayout<rows, Type>;
    static constexpr int exchange_bytes = multiplied == 0 ? 0 : Layout::bytes(k_tile_depth<Type> * k_tiles);
    static constexpr int buffer_bytes = exchange_bytes + count_bits(staged) * rows * row_bytes;
    static constexpr int sharers = alone ? 32 : threads;
    using Ring = InputRing<Type, shape, arrays, rows, sharers, row_bytes, real_units, Who>;
    static constexpr int ring_at = 2 * buffer_bytes;
    static constexpr int scratch_bytes = transposed_scratch_bytes;  // of a warp, in the ring before and after its use
    static constexpr int held = Inputless::products != 0 ? 1 : 0;  // stages that are read once more in the step after
    static_assert(block.num_stages >= 2 + held, "the ring needs a stage to read and a stage to fill, and those held");
    static constexpr int ring_bytes =
        alone ? block.num_stages * Ring::stage_bytes : maximum(block.num_stages * Ring::stage_bytes, threads / 32 * scratch_bytes);
    using Flags = ResetFlags<sequences, rows, sharers, Who>;
    static constexpr int flags_at = ring_at + ring_bytes;
    static constexpr int step_bytes = flags_at + Flags::bytes;
    static constexpr int step_end = (alone ? unit_warps * row_groups : 1) * step_bytes;
    static constexpr int last_stage = (block.num_stages - 1) * Ring::stage_bytes;

    /// Where h before the step lies in a stage of the ring, if it is read: state 0 comes first.
    static constexpr int hidden_at = read_gates * rows * row_bytes;

    static_assert(!shared_out || !recompute, "that reads all of h, which only a whole head has");
};

}  // namespace tilesmith
