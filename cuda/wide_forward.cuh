// The wide schedule, forward: for batches so large that a step is bound by its product. Blocks all over the GPU share the
// recurrent matrix R of one head, each with all gates of its part of the units, and keep it on the chip: some of it in
// registers, the rest in shared memory. All blocks of the launch run at the same time, and exchange h through L2.
//
// The product is wgmma: R is its stationary factor, h the moving one, of which a block has all units of its sequences in
// shared memory. A block's sequences are one part, or two that take turns: then the step of the one runs while the tensor cores
// multiply for the other, and the exchange of h of the one hides behind the other.
//
// What is stored of h for each other, and what lies in shared memory, is [unit / 8][sequence][8 units]: 8 sequences of 8 units
// are a core matrix of wgmma. h has two slots in global memory: who stores h(t + 1) has seen that all of h(t) is there, and that
// comes from blocks that have read h(t - 1).
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1: the rows of a
// warp are such that a lane has all gates of its units.
#pragma once

#include "forward_step.cuh"
#include "grid_barrier.cuh"
#include "lane_elements.cuh"
#include "lane_loads.cuh"
#include "lane_stores.cuh"
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

template <class Cell, class Type, FixedShape shape, WideTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct WideForward {
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

    // ---- what lives through the sequence ----
    Matrix matrix{shared + weights_at + warp / 4 * Matrix::shared_bytes};
    float bias[gates][unit_groups];
    float state[turns][unit_groups][column_tiles][columns][states];
    using Sums = float[tiles][column_tiles][4];
    Sums running;  // the accumulators of the product that runs
    Sums made;     // what it has made, or the one before it, with the bias
    Own own_of_rows[turns];
    LaneStores<Type, shape, 8, 8, arrays, how> results_to;
    TILESMITH_STAMPED(Stamps stamps;)

    TILESMITH_DEVICE int first_row(int turn) const { return static_cast<int>(block_y()) * tiling.batch_tile + turn * rows; }
    /// Its addresses are computed anew wherever it is asked for: none lives through the steps.
    TILESMITH_DEVICE Elements elements_of(int turn) const {
        return {.batch = in.batch, .warp = rank * warps + warp, .head = head, .first_row = opaque(first_row(turn)), .g = lane / 4,
                .j = lane % 4, .order = sequences.lengths ? in.order : nullptr};
    }
    TILESMITH_DEVICE LaneElements<shape, 8, 8> block_of_lane() const {
        return {.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4};
    }
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
    /// The words of a lane's elements: columns 2j and 2j + 1 of each gate with an input.
    TILESMITH_DEVICE void read_inputs(unsigned (&words)[maximum(input_gates, 1)], SharedAddress stage, int chunk, int column_tile) const {
        load_lane_words<input_gates>(words, stage + chunk * chunk_row + 8 * column_tile * chunk_bytes, plane_bytes, lane);
    }

    // ---- h ----

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

    /// The warp has its units of h(t) in the first plane of results: store them for the others, and say so. To be followed by
    /// fence_shared_for_wgmma.
    TILESMITH_DEVICE void send_hidden(int turn, int t) const {
        unsigned short* to = hidden_of(turn, t % 2) + (first_unit / 8 + warp * unit_groups) * rows * 8;
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int first = 0; first < rows; first += 32) {
                const int row = first + lane, chunk = warp * unit_groups + unit_group;
                if (rows % 32 != 0 && row >= rows) continue;
                uint4 value = load_shared_128(result_at(turn, 0, row, chunk));
                if constexpr (sequences.resets)
                    if (own_of_rows[turn].begins_next(row)) value = initial_chunk(turn, row, chunk);
                store_global_128(to + (unit_group * rows + row) * 8, value);
                if constexpr (keeps_own)
                    store_shared_128(turn_at(turn) + foreign * k_tile_bytes + (chunk * rows + row) * chunk_bytes, value);
            }
        sync_warp();
        if (lane == 0) signal_global(counter_of(turn));
    }

    /// 8 units of the initial h of a sequence.
    TILESMITH_DEVICE uint4 initial_chunk(int turn, int row, int chunk) const {
        const int place = first_row(turn) + row;
        if (in.initial == nullptr || place >= in.batch) return uint4{0, 0, 0, 0};
        return load_global_128(in.initial + (static_cast<long long>(sequence_of(place)) * shape.heads + head) * D + first_unit + 8 * chunk);
    }
    TILESMITH_DEVICE float initial_state(const Elements& own, int s, int unit_group, int column_tile, int column) const {
        unsigned short word = 0;
        if (in.initial != nullptr && own.real(unit_group, column_tile, column))
            word = load_global_16(in.initial + own.state_index(s, unit_group, column_tile, column));
        return to_real<Type>(word);
    }

    /// The states before the first step; h for all.
    TILESMITH_DEVICE void begin_turn(int turn) {
        const Elements own = elements_of(turn);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s)
                state[turn][unit_group][column_tile][column][s] = initial_state(own, s, unit_group, column_tile, column);
        });
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
            for (int row = lane; row < rows; row += 32)
                store_shared_128(result_at(turn, 0, row, warp * unit_groups + unit_group),
                                 initial_chunk(turn, row, warp * unit_groups + unit_group));
        sync_warp();
        send_hidden(turn, 0);
        fence_shared_for_wgmma();
    }

    // ---- one step of a turn ----

    /// By all threads. The first waits until all of h(t) of a turn is there, and asks for it when all have read what it replaces.
    TILESMITH_DEVICE void ask_for_hidden(int turn, int t) {
        own_of_rows[turn].look_up(in, first_row(turn), t, thread, threads);
        if constexpr (turns == 2) sync_block();
        if (thread == 0) GridBarrier::wait_alone(counter_of(turn), static_cast<unsigned>(blocks * warps) * (t + 1));
        sync_warp();
        if (thread == 0) {
            fence_global_for_copies();
            load_hidden<behind_results, tiling.k_parts>(turn, t);
        }
        TILESMITH_STAMPED(mark(Phase::exchange);)
        if constexpr (turns == 1) sync_block();
        if (thread == 0) load_hidden<0, behind_results>(turn, t);
        sync_warp();
        TILESMITH_STAMPED(mark(Phase::meeting);)
    }

    /// Parts of K with which a turn's elements are stepped; with the next its results are written, and inputs asked for.
    static constexpr int stepped = maximum(tiling.k_parts / 2, 1);
    /// All threads meet when the inputs of the step that comes are there.
    TILESMITH_DEVICE static void meet_with_inputs() {
        cp_async_wait<turns == 2 ? 1 : tiling.num_stages - 1>();
        sync_block();
    }

    /// Begin the product of step t, part by part of K as h comes, with meanwhile.after<part>() when each has begun.
    template <class Meanwhile>
    TILESMITH_DEVICE void run_product(int turn, int t, Meanwhile meanwhile) {
        if constexpr (!keeps_own) matrix.begin(running);
        run_parts<0>(turn, t, descriptor_of(turn), meanwhile);
    }
    TILESMITH_DEVICE MatrixDescriptor descriptor_of(int turn) const {
        return matrix_descriptor(turn_at(turn), rows * chunk_bytes, 8 * chunk_bytes);
    }
    /// Begin it with the block's own units, when all threads have met for these; and wait for that: the compiler would let each product
    /// wait for the one before where threads part while one runs.
    TILESMITH_DEVICE void begin_with_own() {
        if constexpr (keeps_own) {
            matrix.begin(running);
            matrix.template multiply<foreign, k_tiles - foreign, true>(running, descriptor_of(0));
            wgmma_commit();
            matrix.wait(running);
        }
    }
    template <int number, class Meanwhile>
    TILESMITH_DEVICE void run_parts(int turn, int t, const MatrixDescriptor& hidden, const Meanwhile& meanwhile) {
        if constexpr (number < tiling.k_parts) {
            constexpr int part = tiling.k_parts - 1 - number;  // in the order in which they are asked for
            wait_for_part(turn, part, t);
            if constexpr (turns == 2) meet_with_inputs();  // of the other turn, whose step is beside this part
            TILESMITH_STAMPED(mark(Phase::meeting);)
            constexpr int first = part_at(part), count = part_at(part + 1) - first;
            matrix.template multiply<first, count, number == 0 && !keeps_own>(running, hidden);
            wgmma_commit();
            TILESMITH_STAMPED(mark(Phase::matrix);)
            meanwhile.template after<number>();
            run_parts<number + 1>(turn, t, hidden, meanwhile);
        }
    }
    /// What is done beside the product of sequences that take no turns: inputs are asked for, a part with each part of K. All at
    /// once, between steps, threads would wait for the memory.
    struct Asking {
        const WideForward& kernel;
        int number, steps;  // of the step that they are for
        template <int part>
        TILESMITH_DEVICE void after() const {
            constexpr int parts = maximum(tiling.k_parts - 1, 1);  // beside the last part they would come too late
            if constexpr (part < parts)
                if (number < steps) kernel.template load_inputs<parts>(0, number, kernel.stage_of(number), part);
            if constexpr (part == parts - 1) cp_async_commit();
        }
    };
    /// What is done beside a turn's product: the step before it, which is the other turn's.
    struct Finishing {
        WideForward& kernel;
        int turn, t, steps, number;
        template <int part>
        TILESMITH_DEVICE void after() const {
            kernel.template finish_between<part>(turn, t, steps, number);
        }
    };

    /// Wait until the product is made. What the lanes take of it has registers of its own, and is computed here: of accumulators
    /// that are only copied the compiler would wait for the next product too.
    TILESMITH_DEVICE void end_product() {
        matrix.wait(running);
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) {
                const float of_row = Rows::of_row(tile, upper, [&](int gate, int unit_group) { return bias[gate][unit_group]; });
#pragma unroll
                for (int i = 0; i < 2 * column_tiles; ++i)
                    made[tile][i / 2][2 * upper + i % 2] = running[tile][i / 2][2 * upper + i % 2] + of_row;
            }
    }

    /// The step of a lane's elements of some column tiles, from their product and inputs; results where h was.
    template <int first_tile = 0, int count = column_tiles>
    TILESMITH_DEVICE void step(int turn, int t, SharedAddress stage) {
        const Elements own = elements_of(turn);
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = first_tile; column_tile < first_tile + count; ++column_tile) {
                const int chunk = warp * unit_groups + unit_group;
                unsigned wx[maximum(input_gates, 1)];
                read_inputs(wx, stage, chunk, column_tile);
                float results[columns][arrays];
#pragma unroll
                for (int column = 0; column < columns; ++column) {
                    float gate[gates];
#pragma unroll
                    for (int q = 0; q < gates; ++q) {
                        gate[q] = has(Cell::recurrent, q) ? Rows::product(made, q, unit_group, column_tile, column) : bias[q][unit_group];
                        const unsigned word = wx[has(Cell::input, q) ? rank_among(Cell::input, q) : 0];
                        if (has(Cell::input, q)) gate[q] += column == 0 ? unpack_low<Type>(word) : unpack_high<Type>(word);
                    }
                    const int row = own.row(column_tile, column);
                    auto& stepped = state[turn][unit_group][column_tile][column];
                    step_element<Cell, Type, save>(gate, stepped, results[column], own, unit_group, own_of_rows[turn].runs(row, t));
                    if (own_of_rows[turn].begins_next(row))
#pragma unroll
                        for (int s = 0; s < states; ++s) stepped[s] = initial_state(own, s, unit_group, column_tile, column);
                }
                results_to.store(
                    block_of_lane(), turn * turn_bytes + chunk * chunk_row + 8 * column_tile * chunk_bytes,
                    [&](int array, int, int, int column) { return results[column][array]; },
                    [&](int array, int row, int unit) { return result_at(0, array, row, 0) + 2 * unit; });
            }
    }

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

    /// What follows a turn's product: its step, h for the others; its results are to be written.
    TILESMITH_DEVICE void finish(int turn, int t, int steps, SharedAddress stage) {
        step(turn, t, stage);
        sync_warp();
        TILESMITH_STAMPED(mark(Phase::pointwise);)
        if (t + 1 < steps) send_hidden(turn, t + 1);
        TILESMITH_STAMPED(mark(Phase::exchange);)
        fence_shared_for_wgmma();  // h will replace what it has stored
        sync_block();              // all results are there, and all inputs read
    }

    /// The stage of the ring that a turn's step has, counted through turns and steps.
    TILESMITH_DEVICE SharedAddress stage_of(int number) const { return shared + ring_at + number % tiling.num_stages * stage_bytes; }

    /// Ask for the inputs of a turn's step by its number; a group of copies in any case.
    TILESMITH_DEVICE void ask_for_inputs(int number, int steps) const {
        if (number < steps * turns) load_inputs(number % turns, number / turns, stage_of(number));
        cp_async_commit();
    }

    TILESMITH_DEVICE void prepare() {
        matrix.load(lane, warp % 4, [&](int tile_row) {
            const int gate = tile_row / warp_units, unit = first_unit + warp * warp_units + tile_row % warp_units;
            return gate < Rows::product_gates ? in.r + (static_cast<long long>(gate * shape.heads + head) * D + unit) * D : nullptr;
        }, [&](int k_tile) { return (first_k_tile() + k_tile) % k_tiles * 16; });
        load_bias<Type, Cell>(bias, in.b, ~0u, elements_of(0));
        if (thread == 0) {
#pragma unroll 1
            for (int i = 0; i < turns * tiling.k_parts; ++i) begin_transfer_barrier(barrier_of(0, i), 1);
            fence_transfer_barriers();
        }
        results_to.prepare(block_of_lane(), lane, [&](int array, int row, int unit) { return result_at(0, array, row, 0) + 2 * unit; });
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
            own_of_rows[turn].first = own_of_rows[turn].at = shared + own_at + turn * Own::bytes;
            if constexpr (sequences.resets) {  // of a step before the first nothing begins anew
                own_of_rows[turn].look_up(in, first_row(turn), -2, thread, threads);
            }
        }
        sync_block();
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) begin_turn(turn);
    }

    /// Of two turns, whose parts run beside each other, steps are marked alone.
    TILESMITH_STAMPED(TILESMITH_DEVICE void mark(Phase phase) { if constexpr (turns == 1) stamps.mark(phase); })

    /// The steps of sequences that take no turns.
    TILESMITH_DEVICE void run_alone(int steps) {
        sync_block();
        for (int t = 0; t < steps; ++t) {
            begin_with_own();
            TILESMITH_STAMPED(mark(Phase::matrix);)
            if (t > 0) write_results<1>(0, t - 1);
            TILESMITH_STAMPED(mark(Phase::transfers);)
            ask_for_hidden(0, t);
            run_product(0, t, Asking{*this, t + tiling.num_stages - 1, steps});
            end_product();
            TILESMITH_STAMPED(mark(Phase::matrix);)
            meet_with_inputs();  // h is read
            TILESMITH_STAMPED(mark(Phase::meeting);)
            finish(0, t, steps, stage_of(t));
            TILESMITH_STAMPED(stamps.step(Phase::meeting);)
        }
        write_results<0>(0, steps - 1);
    }

    /// Of two parts: while the product of one runs, the step before it is finished, which is the other's, and h of the next comes.
    /// Tensor cores take no more instructions than they work on, so all that is done between those of the parts of K.
    TILESMITH_DEVICE void run_in_turn(int steps) {
        ask_for_hidden(0, 0);
        for (int t = 0; t < steps; ++t)
#pragma unroll
            for (int turn = 0; turn < 2; ++turn) {
                const int number = 2 * t + turn;
                run_product(turn, t, Finishing{*this, 1 - turn, turn == 0 ? t - 1 : t, steps, number - 1});
                if (number + 1 < 2 * steps) ask_for_hidden(1 - turn, turn == 0 ? t : t + 1);
                end_product();
                TILESMITH_STAMPED(if (turn == 1) stamps.step(Phase::matrix);)
            }
        meet_with_inputs();  // h is read
        finish(1, steps - 1, steps, stage_of(2 * steps - 1));
        write_results<0>(1, steps - 1);
    }

    /// What is done after a part of K has begun, of another turn's step.
    template <int part>
    TILESMITH_DEVICE void finish_between(int turn, int t, int steps, int number) {
        constexpr bool last = part == stepped - 1, alone = tiling.k_parts == 1;
        if (number >= 0) {
            if constexpr (part < stepped)
                step<part * (column_tiles / stepped), column_tiles / stepped>(turn, t, stage_of(number));
            if constexpr (last) {
                sync_warp();
                if (t + 1 < steps) send_hidden(turn, t + 1);
                fence_shared_for_wgmma();  // h will replace what it has stored
            }
            if constexpr (alone) sync_block();  // else all have met before this part
            if constexpr (alone || part == stepped) write_results<0>(turn, t);
        }
        if constexpr (alone || part == stepped) ask_for_inputs(number + tiling.num_stages, steps);
    }

    TILESMITH_DEVICE void run() {
        const int steps = longest<sequences>(in, static_cast<int>(block_y()) * tiling.batch_tile, tiling.batch_tile, lane);
        prepare();
        for (int number = 0; number < tiling.num_stages - 1; ++number) ask_for_inputs(number, steps);
        TILESMITH_STAMPED(stamps.start(in.stamps, warp == 0);)
        if constexpr (turns == 1)
            run_alone(steps);
        else
            run_in_turn(steps);
        TILESMITH_STAMPED(stamps.finish();)
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
            store_last<Type>(in.last, elements_of(turn), state[turn]);
            if constexpr (sequences.lengths) write_rest(turn, steps);
        }
    }
};

}  // namespace tilesmith
