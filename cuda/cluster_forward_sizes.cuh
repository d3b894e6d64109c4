// How large everything is in a block of the cluster schedule's forward kernel, and what lies where in shared memory.
#pragma once

#include "forward_step.cuh"
#include "hidden_mail.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "partial_sums.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/cluster/forward.py states their constraints.
struct ClusterTiling {
    int cluster;          // blocks that share a head
    int units_per_warp;   // 8: a 16-row tile holds two gates of 8 units; 16: one gate of 16 units
    int batch_tile;       // sequences per cluster: 4, or a multiple of 8
    int k_split;          // warps that share a group of units, each with a part of the previous units
    int k_tiles_in_registers;  // of a warp's groups of 32 previous units, how many keep their part of R in registers
    int accumulators;           // independent accumulators per tile, so that matrix instructions overlap
    int num_stages;         // stages of the ring that holds Wx
    int transfer_warps;     // 1: a warp copies inputs, writes results and poisons for the others; 0: each does so itself
};

template <class Cell, class Type, FixedShape shape, ClusterTiling tiling, Save save, Sequences sequences>
struct ClusterForwardSizes {
    // ---- units and warps ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);

    static constexpr int cluster = tiling.cluster;
    static constexpr int units = tiling.units_per_warp;
    static constexpr int unit_warps = ceil_div(ceil_div(D, units), cluster);  // of a block
    static constexpr int warps = unit_warps * tiling.k_split;
    static constexpr int stepping = 32 * warps;  // threads: the first of the block
    static constexpr int threads = stepping + 32 * tiling.transfer_warps;
    static constexpr int sent_units = cluster * unit_warps * units;

    static constexpr int k_tiles = ceil_div(ceil_div(sent_units, 32), tiling.k_split);  // of 32 previous units, per warp
    static constexpr int padded_k = 32 * k_tiles * tiling.k_split;

    using Rows = GateRows<Cell, units>;
    static constexpr int tiles = Rows::tiles;  // of 16 rows, per warp

    static constexpr int rows = tiling.batch_tile;
    using Elements = LaneElements<shape, units, rows, sent_units, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups;  // groups of 8 units a warp owns
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;  // elements per lane, unit and column tile

    static_assert(tiling.num_stages >= 2, "the ring needs a stage to read and a stage to fill");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static constexpr bool apart = tiling.transfer_warps > 0;
    // The warps of a block poll a part of h each, meet, and load what they multiply; or each polls all that it multiplies,
    // which is less of a detour, and too much to read where a tile of 8 sequences has nothing else to wait with.
    static constexpr bool shared_polls = tiling.batch_tile == 8;
    static constexpr int meetings = tiling.k_split == 1 ? 0 : unit_warps;  // named barriers of groups of units
    static_assert(meetings + (apart ? 2 : 0) + (shared_polls ? 1 : 0) <= 15, "a block has 15 named barriers");
    static_assert((cluster - 1) * unit_warps * units < D, "every block owns units");

    // ---- shared memory ----
    using Mail = HiddenMail<Type, shape, units, rows, cluster, sent_units, padded_k>;
    // Inputs and results of each warp that owns units, or of all of them at once.
    static constexpr int places = apart ? 1 : unit_warps;
    static constexpr int place_units = apart ? unit_warps * units : units;
    static constexpr int place_threads = apart ? 32 * tiling.transfer_warps : 32;  // who copy and write
    struct Transfer {
        TILESMITH_DEVICE static int thread() {
            return apart ? static_cast<int>(thread_index()) - stepping : static_cast<int>(thread_index()) % 32;
        }
    };
    // A row of units of one sequence: an odd number of chunks, so that 8 rows lie in 8 different groups of banks.
    static constexpr int row_bytes = (place_units / 8 | 1) * chunk_bytes;
    // What is written out for every step, of a place: [array][sequence][unit].
    static constexpr int arrays = result_arrays<Cell, save>;
    static constexpr int array_bytes = rows * row_bytes;
    static constexpr int staged_at = Mail::bytes;
    static constexpr int staged_bytes = arrays * array_bytes;  // per place
    using Ring = InputRing<Type, shape, input_gates, rows, place_threads, row_bytes, place_units, Transfer>;
    static constexpr int stage_bytes = Ring::stage_bytes;
    static constexpr int ring_at = staged_at + places * staged_bytes;
    static constexpr int ring_bytes = tiling.num_stages * stage_bytes;  // per place
    // the part of R that is not in registers: [warp][group][tile][half][lane]
    static constexpr int weights_at = ring_at + places * ring_bytes;
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, minimum(rows, 8), tiling.accumulators>;
    static constexpr int partial_at = weights_at + warps * Matrix::shared_bytes;
    using Partial = PartialSums<Matrix, tiles, unit_warps, tiling.k_split>;
    static constexpr int shared_bytes = partial_at + 2 * Partial::bytes;
};

}  // namespace tilesmith
