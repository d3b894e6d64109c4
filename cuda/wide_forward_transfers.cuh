// What the wide schedule's forward pass moves: inputs to a ring in shared memory, h from the blocks that have it, results to global
// memory; and where all of it lies. wide_forward.cuh says how that makes a step.
#pragma once

#include "forward_step.cuh"
#include "grid_barrier.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"
#include "wide_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/wide/forward.py states their constraints.
struct WideTiling {
    int blocks;                // that share a head
    int units_per_warp;        // 8: a 16-row tile holds two gates of 8 units; 16: one gate of 16 units
    int batch_tile;            // sequences of a block
    int turns;                 // parts of them that take turns: 1 or 2
    int k_tiles_in_registers;  // of the groups of 16 previous units, how many have their R in registers
    int k_parts;               // of h, of which the product begins with one when it has come
    int num_stages;            // of the ring that holds Wx, of a part's step each; 1: it is asked for beside that step's product
};

template <class Cell, class Type, FixedShape shape, WideTiling tiling, Save save, Sequences sequences>
struct WideForwardTransfers {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states, gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int arrays = result_arrays<Cell, save>;

    static constexpr int blocks = tiling.blocks;
    static constexpr int units = D / blocks;  // of a block
    static constexpr int warp_units = tiling.units_per_warp;
    static constexpr int warps = units / warp_units, warpgroups = warps / 4, threads = 32 * warps;
    static constexpr int turns = tiling.turns;
    static constexpr int rows = tiling.batch_tile / turns;  // sequences of a turn
    using Rows = GateRows<Cell, warp_units>;
    static constexpr int tiles = Rows::tiles;  // of 64 rows, per warpgroup
    using Matrix = WideMatrix<Type, tiles, D / 16, tiling.k_tiles_in_registers, rows>;
    using Elements = LaneElements<shape, warp_units, rows, D, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups, column_tiles = Elements::column_tiles, columns = 2;
    static constexpr int chunks = units / 8;  // rows of 8 units, of a block

    static_assert(blocks * warpgroups * 4 * warp_units == D, "all blocks have whole warpgroups");
    static_assert(turns == 1 || turns == 2, "the step of one part runs beside the product of the other");
    static_assert(D / 16 % tiling.k_parts == 0, "parts of K are alike");
    static_assert(tiling.num_stages >= turns, "one turn's inputs come while another's are read");
    static_assert(threads <= 1024, "a block has at most 1024 threads");

    // ---- shared memory: of each turn h, which results replace; a ring of inputs; R; barriers that count h's bytes ----
    static constexpr int hidden_bytes = D / 8 * rows * chunk_bytes;
    static constexpr int chunk_row = (rows + 1) * chunk_bytes;  // of inputs and results: no bank conflicts across chunks
    static constexpr int plane_bytes = chunks * chunk_row;
    static constexpr int turn_bytes = ceil_div(maximum(hidden_bytes, arrays * plane_bytes), 128) * 128;
    // K, in groups of 16, begins behind the block's own units, which come last: their h need not travel, where results leave it a place.
    static constexpr int k_tiles = D / 16, k_tile_bytes = 2 * rows * chunk_bytes;
    static constexpr bool keeps_own = turns == 1 && k_tiles - units / 16 >= tiling.k_parts &&
                                      arrays * plane_bytes <= (k_tiles - units / 16) * k_tile_bytes;
    static constexpr int foreign = keeps_own ? k_tiles - units / 16 : k_tiles;
    /// Where a part of K begins, of those that come from other blocks; the end, of the last and one.
    TILESMITH_DEVICE static constexpr int part_at(int part) { return part * foreign / tiling.k_parts; }
    /// The parts of K from here on lie behind the results: sequences that take no turns ask for them while these are written.
    TILESMITH_DEVICE static constexpr int parts_before_results_end() {
        int part = 0;
        while (part < tiling.k_parts && (turns == 2 || part_at(part) * k_tile_bytes < arrays * plane_bytes)) ++part;
        return part;
    }
    static constexpr int behind_results = parts_before_results_end();
    static constexpr int ring_at = turns * turn_bytes;
    static constexpr int stage_bytes = input_gates * plane_bytes;
    static constexpr int weights_at = ceil_div(ring_at + tiling.num_stages * stage_bytes, 128) * 128;
    static constexpr int barriers_at = weights_at + warpgroups * Matrix::shared_bytes;  // of each turn one for each part of K
    static constexpr int own_at = barriers_at + ceil_div(turns * tiling.k_parts * transfer_barrier_bytes, 16) * 16;
    using Own = StepSequences<sequences, rows>;
    static constexpr int shared_bytes = own_at + turns * Own::bytes;

    // ---- what blocks store for each other: [slot][tile of the batch][head][turn][unit / 8][sequence][8] ----
    static constexpr int turn_elements = D * rows;

    // ---- the thread's place ----
    const ForwardArguments& in;
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int warp = thread / 32;
    const int rank = static_cast<int>(block_x()) % blocks;
    const int head = static_cast<int>(block_x()) / blocks;
    const int batch_tiles = ceil_div(in.batch, tiling.batch_tile);
    const int group = static_cast<int>(block_y()) * shape.heads + head;  // who share a head and a tile of the batch
    const SharedAddress shared = shared_memory();
    const int first_unit = rank * units;

    TILESMITH_DEVICE explicit WideForwardTransfers(const ForwardArguments& in) : in(in) {}

    TILESMITH_DEVICE int first_row(int turn) const { return static_cast<int>(block_y()) * tiling.batch_tile + turn * rows; }
    TILESMITH_DEVICE SharedAddress turn_at(int turn) const { return shared + turn * turn_bytes; }
    TILESMITH_DEVICE SharedAddress result_at(int turn, int array, int row, int chunk) const {
        return turn_at(turn) + array * plane_bytes + chunk * chunk_row + row * chunk_bytes;
    }
    TILESMITH_DEVICE unsigned short* hidden_of(int turn, int slot) const {
        const int groups = batch_tiles * shape.heads;
        return in.hidden + (static_cast<long long>(slot * groups + group) * turns + turn) * turn_elements;
    }
    TILESMITH_DEVICE unsigned* counter_of(int turn) const { return in.counters + (group * turns + turn) * GridBarrier::words; }
    /// The sequence at a place of the batch; past its end any will do.
    TILESMITH_DEVICE int sequence_of(int place) const { return sequence_at<sequences>(in, minimum(place, in.batch - 1)); }

    /// The calling thread's share of the vectors of 8 units of `count` planes: function(plane, row, chunk). Of `parts` one alone.
    /// idle: the first warps, which have no share.
    template <int count, int parts = 1, int idle = 0, class Function>
    TILESMITH_DEVICE void for_each_vector(Function function, int part = 0) const {
        constexpr int step = (threads - 32 * idle) / chunks, trips = ceil_div(count * rows, step), part_trips = ceil_div(trips, parts);
        const int own = opaque(thread) - 32 * idle, first = own / chunks, chunk = own % chunks;  // addresses are computed anew
        if (idle > 0 && (own < 0 || own >= step * chunks)) return;
#pragma unroll(minimum(maximum(part_trips, 1), 2))
        for (int i = part * part_trips; i < minimum(trips, (part + 1) * part_trips); ++i) {
            const int row = first + i * step;  // of all planes
            if (count * rows % step != 0 && row >= count * rows) continue;
            function(row / rows, row % rows, chunk);
        }
    }

    // ---- inputs ----

    /// The stage of the ring that a turn's step has, counted through turns and steps.
    TILESMITH_DEVICE SharedAddress stage_of(int number) const { return shared + ring_at + number % tiling.num_stages * stage_bytes; }

    /// Ask for the inputs of a turn's step; or of `parts` of them for one.
    template <int parts = 1>
    TILESMITH_DEVICE void load_inputs(int turn, int t, SharedAddress stage, int part = 0) const {
        for_each_vector<input_gates, parts>(
            [&](int gate, int row, int chunk) {
                const long long step = static_cast<long long>(sequence_of(first_row(turn) + row)) * in.seq + t;
                cp_async<16>(stage + gate * plane_bytes + chunk * chunk_row + row * chunk_bytes,
                             in.wx + ((step * input_gates + gate) * shape.heads + head) * D + first_unit + 8 * chunk);
            },
            part);
    }
    /// Ask for the inputs of a turn's step by its number; a group of copies in any case.
    TILESMITH_DEVICE void ask_for_inputs(int number, int steps) const {
        if (number < steps * turns) load_inputs(number % turns, number / turns, stage_of(number));
        cp_async_commit();
    }

    /// All threads meet when the inputs of the step that comes are there.
    TILESMITH_DEVICE static void meet_with_inputs() {
        cp_async_wait<turns == 2 ? 1 : tiling.num_stages - 1>();
        sync_block();
    }

    // ---- h ----

    /// 8 units of the initial h of a sequence.
    TILESMITH_DEVICE uint4 initial_chunk(int turn, int row, int chunk) const {
        const int place = first_row(turn) + row;
        if (in.initial == nullptr || place >= in.batch) return uint4{0, 0, 0, 0};
        return load_global_128(in.initial + (static_cast<long long>(sequence_of(place)) * shape.heads + head) * D + first_unit + 8 * chunk);
    }
    TILESMITH_DEVICE SharedAddress barrier_of(int turn, int part) const {
        return shared + barriers_at + (turn * tiling.k_parts + part) * transfer_barrier_bytes;
    }
    /// Which group of K is the first, of those of all units in their order.
    TILESMITH_DEVICE int first_k_tile() const { return keeps_own ? (rank + 1) % blocks * (units / 16) : 0; }
    /// By one thread, when all of h(t) is there: begin copying some parts of it, the last first.
    template <int first, int last>
    TILESMITH_DEVICE void load_hidden(int turn, int t) const {
#pragma unroll
        for (int part = last - 1; part >= first; --part) {
            const int count = part_at(part + 1) - part_at(part), begin = (first_k_tile() + part_at(part)) % k_tiles;
            const int before_end = minimum(count, k_tiles - begin);  // the others are the first units of the head
            const unsigned short* from = hidden_of(turn, t % 2);
            const SharedAddress to = turn_at(turn) + part_at(part) * k_tile_bytes, barrier = barrier_of(turn, part);
            arrive_and_expect(barrier, count * k_tile_bytes);
            copy_to_blocks<1>(to, from + begin * (k_tile_bytes / 2), before_end * k_tile_bytes, barrier);
            if (keeps_own && before_end < count)
                copy_to_blocks<1>(to + before_end * k_tile_bytes, from, (count - before_end) * k_tile_bytes, barrier);
        }
    }
    /// Wait until a part of h(t) has come.
    TILESMITH_DEVICE void wait_for_part(int turn, int part, int t) const {
        for (unsigned rounds = 0; !phase_ended(barrier_of(turn, part), t % 2);) poll_again(rounds);
        sync_warp();
    }

    // ---- results ----

    /// Write the results of a turn's step, which all threads have met for. idle: the first warps, which have other things to do.
    template <int idle>
    TILESMITH_DEVICE void write_results(int turn, int t) const {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        for_each_vector<arrays, 1, idle>([&](int array, int row, int chunk) {
            if (first_row(turn) + row >= in.batch) return;
            const long long step = static_cast<long long>(sequence_of(first_row(turn) + row)) * in.seq + t;
            copy_to_global<16>(result_array<Cell, save>(in, array, array_elements) + (step * shape.heads + head) * D + first_unit + 8 * chunk,
                               result_at(turn, array, row, chunk));
        });
    }
    /// Write zeros for the steps from `t` on.
    TILESMITH_DEVICE void write_rest(int turn, int t) const {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        for (; t < in.seq; ++t)
            for_each_vector<arrays>([&](int array, int row, int chunk) {
                if (first_row(turn) + row >= in.batch) return;
                const long long step = static_cast<long long>(sequence_of(first_row(turn) + row)) * in.seq + t;
                zero_global<16>(result_array<Cell, save>(in, array, array_elements) + (step * shape.heads + head) * D + first_unit + 8 * chunk);
            });
    }
};

}  // namespace tilesmith
