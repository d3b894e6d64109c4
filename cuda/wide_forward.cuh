// The wide schedule, forward: for batches so large that a step is bound by its product. Blocks all over the GPU share the
// recurrent matrix R of one head, each with all gates of its part of the units, and keep it on the chip: some of it in
// registers, the rest in shared memory. All blocks of the launch run at the same time, and exchange h through L2.
//
// The product is wgmma: R is its stationary factor, h the moving one, of which a block has all units of its sequences in
// shared memory. A block's sequences are one part, or two that take turns: then the step of the one runs while the tensor cores
// multiply for the other, and the exchange of h of the one hides behind the other.
//
// A block's own h need not travel: where there is a place for it beside the results of a step, K begins behind the block's own units,
// and the product begins with these, the last of K, while h of the others is on its way.
//
// What is stored of h for each other, and what lies in shared memory, is [unit / 8][sequence][8 units]: 8 sequences of 8 units
// are a core matrix of wgmma. h has two slots in global memory: who stores h(t + 1) has seen that all of h(t) is there, and that
// comes from blocks that have read h(t - 1).
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1: the rows of a
// warp are such that a lane has all gates of its units.
#pragma once

#include "forward_step.cuh"
#include "lane_loads.cuh"
#include "lane_stores.cuh"
#include "sequences.cuh"
#include "wide_forward_transfers.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, WideTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct WideForward : WideForwardTransfers<Cell, Type, shape, tiling, save, sequences> {
    using Base = WideForwardTransfers<Cell, Type, shape, tiling, save, sequences>;
    using typename Base::Elements, typename Base::Matrix, typename Base::Own, typename Base::Rows;
    using Base::D, Base::states, Base::gates, Base::input_gates, Base::arrays, Base::blocks, Base::units, Base::warp_units, Base::warps,
        Base::threads, Base::turns, Base::rows, Base::tiles, Base::unit_groups, Base::column_tiles, Base::columns, Base::k_tiles,
        Base::k_tile_bytes, Base::keeps_own, Base::foreign, Base::behind_results, Base::chunk_row, Base::plane_bytes, Base::turn_bytes,
        Base::own_at, Base::in, Base::thread, Base::lane, Base::warp, Base::rank, Base::head, Base::shared, Base::first_unit;
    using Base::part_at, Base::first_row, Base::turn_at, Base::result_at, Base::hidden_of, Base::counter_of, Base::stage_of,
        Base::load_inputs, Base::ask_for_inputs, Base::meet_with_inputs, Base::initial_chunk, Base::barrier_of, Base::first_k_tile,
        Base::wait_for_part, Base::write_rest;

    // ---- what lives through the sequence ----
    Matrix matrix{shared + Base::weights_at + warp / 4 * Matrix::shared_bytes};
    float bias[gates][unit_groups];
    float state[turns][unit_groups][column_tiles][columns][states];
    using Sums = float[tiles][column_tiles][4];
    Sums running;  // the accumulators of the product that runs
    Sums made;     // what it has made, or the one before it, with the bias
    Own own_of_rows[turns];
    LaneStores<Type, shape, 8, 8, arrays, how> results_to;
    TILESMITH_STAMPED(Stamps stamps;)

    TILESMITH_DEVICE explicit WideForward(const ForwardArguments& arguments) : Base(arguments) {}

    /// Its addresses are computed anew wherever it is asked for: none lives through the steps.
    TILESMITH_DEVICE Elements elements_of(int turn) const {
        return {.batch = in.batch, .warp = rank * warps + warp, .head = head, .first_row = opaque(first_row(turn)), .g = lane / 4,
                .j = lane % 4, .order = sequences.lengths ? in.order : nullptr};
    }
    TILESMITH_DEVICE LaneElements<shape, 8, 8> block_of_lane() const {
        return {.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4};
    }
    // ---- inputs ----

    /// The words of a lane's elements: columns 2j and 2j + 1 of each gate with an input.
    TILESMITH_DEVICE void read_inputs(unsigned (&words)[maximum(input_gates, 1)], SharedAddress stage, int chunk, int column_tile) const {
        load_lane_words<input_gates>(words, stage + chunk * chunk_row + 8 * column_tile * chunk_bytes, plane_bytes, lane);
    }

    // ---- h ----

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
            Base::template load_hidden<behind_results, tiling.k_parts>(turn, t);
        }
        TILESMITH_STAMPED(mark(Phase::exchange);)
        if constexpr (turns == 1) sync_block();
        if (thread == 0) Base::template load_hidden<0, behind_results>(turn, t);
        sync_warp();
        TILESMITH_STAMPED(mark(Phase::meeting);)
    }

    /// Parts of K with which a turn's elements are stepped; with the next its results are written, and inputs asked for.
    static constexpr int stepped = maximum(tiling.k_parts / 2, 1);
    /// Begin the product of step t, part by part of K as h comes, with meanwhile.after<part>() when each has begun.
    template <class Meanwhile>
    TILESMITH_DEVICE void run_product(int turn, int t, Meanwhile meanwhile) {
        if constexpr (!keeps_own) matrix.begin(running);
        run_parts<0>(turn, t, descriptor_of(turn), meanwhile);
    }
    TILESMITH_DEVICE MatrixDescriptor descriptor_of(int turn) const {
        return matrix_descriptor(turn_at(turn), rows * chunk_bytes, 8 * chunk_bytes);
    }
    /// Begin it with the block's own units, when all threads have met for these.
    TILESMITH_DEVICE void begin_with_own() {
        if constexpr (keeps_own) {
            matrix.begin(running);
            matrix.template multiply<foreign, k_tiles - foreign, true>(running, descriptor_of(0));
            wgmma_commit();
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

    /// Own units are multiplied before h of the others is asked for, unless that waits for results anyway: then while it comes.
    static constexpr bool own_before_others = behind_results < tiling.k_parts;

    /// The steps of sequences that take no turns.
    TILESMITH_DEVICE void run_alone(int steps) {
        sync_block();
        for (int t = 0; t < steps; ++t) {
            if constexpr (own_before_others && keeps_own) {
                begin_with_own();
                matrix.wait(running);  // else each product would wait for the one before: threads part while it runs
            }
            TILESMITH_STAMPED(mark(Phase::matrix);)
            if (t > 0) Base::template write_results<1>(0, t - 1);
            TILESMITH_STAMPED(mark(Phase::transfers);)
            ask_for_hidden(0, t);
            if constexpr (!own_before_others) begin_with_own();
            run_product(0, t, Asking{*this, t + tiling.num_stages - 1, steps});
            end_product();
            TILESMITH_STAMPED(mark(Phase::matrix);)
            meet_with_inputs();  // h is read
            TILESMITH_STAMPED(mark(Phase::meeting);)
            finish(0, t, steps, stage_of(t));
            TILESMITH_STAMPED(stamps.step(Phase::meeting);)
        }
        Base::template write_results<0>(0, steps - 1);
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
        Base::template write_results<0>(1, steps - 1);
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
            if constexpr (alone || part == stepped) Base::template write_results<0>(turn, t);
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
