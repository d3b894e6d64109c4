// How large everything is in a block of the resident schedule's forward kernel, and what lies where in shared memory.
#pragma once

#include "forward_step.cuh"
#include "input_product.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/resident/forward.py states their constraints.
struct ResidentTiling {
    int units_per_warp;        // 8: a 16-row tile holds two gates of 8 units; 16: one gate of 16 units
    int batch_tile;            // sequences per block: 4, or a multiple of 8
    int k_split;               // warps that share the same units, each with a part of the previous units
    int k_tiles_in_registers;  // of a warp's k-tiles, of 64 bytes of previous units each, those whose part of R stays in registers
    int accumulators;          // independent ones per tile, so that matrix instructions overlap
    int num_stages;            // stages of the ring that holds Wx, or x
    // where the kernel multiplies its input itself:
    int input_k_tiles_in_registers = 0;  // as k_tiles_in_registers, of x and W
    int overlap_input = 0;  // 1: their product is made beside the pointwise step, in registers of its own; 0: behind it
    int keeps_rests = 0;  // in float32, 1: of the words of R in registers what TF32 leaves of them is there too
};

template <class Cell, class Type, FixedShape shape, ResidentTiling tiling, Save save, Sequences sequences>
struct ResidentSizes {
    // ---- units and warps ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);

    static constexpr int units = tiling.units_per_warp;
    static constexpr int unit_warps = ceil_div(D, units);
    static constexpr int warps = unit_warps * tiling.k_split;
    static constexpr int threads = 32 * warps;
    static constexpr int padded_units = unit_warps * units;

    static constexpr int k_tiles = ceil_div(ceil_div(D, k_tile_depth<Type>), tiling.k_split);  // of previous units, per warp
    static constexpr int padded_k = k_tile_depth<Type> * k_tiles * tiling.k_split;

    using Rows = GateRows<Cell, units>;
    static constexpr int tiles = Rows::tiles;  // of 16 rows, per warp

    // A tile of 8 columns holds 8 sequences, or 4 in its even columns: then each lane has one element instead of
    // two, which halves the work of the special-function units at the price of idle tensor-core columns.
    static constexpr int rows = tiling.batch_tile;
    using Elements = LaneElements<shape, units, rows, padded_units, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups;  // of 8 units each, that a warp owns
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;  // elements per lane, unit and column tile

    static_assert(tiling.num_stages >= 2, "the ring needs a stage to read and a stage to fill");
    static_assert(threads <= 1024, "a block has at most 1024 threads");

    // ---- shared memory ----
    static constexpr int chunk = chunk_bytes;
    static constexpr int element = element_bytes<Type>;
    static constexpr int row_bytes = row_bytes_of<Type, rows>(padded_units);  // of one sequence
    // What is written out for every step: arrays of [sequence][unit]. The first is h, the others are staged.
    static constexpr int arrays = result_arrays<Cell, save>;
    // Two buffers of results, [h, staged arrays]: one is read while the other is written.
    // h: MovingLayout; staged: [array][sequence][unit].
    using Layout = MovingLayout<rows, Type>;
    static constexpr int hidden_bytes = Layout::bytes(padded_k);
    static constexpr int array_bytes = rows * row_bytes;
    static constexpr int zeros_at = hidden_bytes + (arrays - 1) * array_bytes;  // what is written out behind a sequence's end
    static constexpr int buffer_bytes = zeros_at + (sequences.lengths ? chunk : 0);
    static constexpr bool multiplies_input = shape.inputs > 0;
    using Input = typename Either<multiplies_input,
                                  InputProduct<Cell, Type, shape, units, rows, tiling.k_split, tiling.input_k_tiles_in_registers, threads>,
                                  ReadInput<InputRing<Type, shape, input_gates, rows, threads, row_bytes>, padded_units != D>>::Type;
    using Ring = typename Input::Ring;
    static constexpr int stage_bytes = Ring::stage_bytes;
    static constexpr int ring_at = 2 * buffer_bytes;
    // the part of R that is not in registers: [warp][k-tile][tile][half][lane]
    static constexpr int weights_at = ring_at + tiling.num_stages * stage_bytes;
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, rows, tiling.accumulators,
                                    tiling.keeps_rests != 0>;
    static constexpr int weights_bytes = warps * Matrix::shared_bytes;
    // that of W, likewise
    static constexpr int input_weights_at = weights_at + weights_bytes;
    static constexpr int input_weights_bytes = warps * Input::Matrix::shared_bytes;
    // partial sums where K is split: [part - 1][unit warp][tile][column tile][lane]
    static constexpr int partial_at = input_weights_at + input_weights_bytes;
    static constexpr int partial_tiles = tiles + Input::apart_tiles;
    static constexpr int part_bytes = unit_warps * partial_tiles * column_tiles * 32 * chunk;
    static constexpr int partial_bytes = (tiling.k_split - 1) * part_bytes;
    // the initial h, laid out as the other, where sequences begin anew
    static constexpr int initial_at = partial_at + partial_bytes;
    static constexpr int initial_bytes = sequences.resets ? hidden_bytes : 0;
    using Flags = ResetFlags<sequences, rows, threads>;
    static constexpr int flags_at = initial_at + initial_bytes;
    static constexpr int shared_bytes = flags_at + Flags::bytes;
};

}  // namespace tilesmith
