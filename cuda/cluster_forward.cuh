// The cluster schedule, forward: the blocks of a cluster share the recurrent matrix R of one head, each with all gates of
// its part of the units, and run a tile of the batch through all time steps.
//
// A warp owns `units_per_warp` units with all their gates, or a part of K for them, as in the resident schedule; all of h is
// in every block. h comes as messages that carry their own readiness (hidden_mail.cuh): a step begins with a warp polling
// for the h it multiplies, by the very loads that feed the tensor cores, and there is no barrier of a block or cluster in it.
// What else a warp needs or makes it keeps to itself: its inputs come through a ring of its own, its results leave through
// shared memory of its own. Warps that share units and have a part of K each meet once a step, to add their sums; that
// meeting also tells each of them that all of h has come, where it has seen but its part.
//
// Or the block has a transfer warp for that, which fills one ring for the block, writes its results out and poisons the slots
// of h, and the warps that step do nothing else. Two named barriers go to and fro between them:
//
//     step t of a warp that owns units              step t of the transfer warp
//       signal `left`: it has read h(t - 1) and       wait for `left`
//         Wx(t), and its results of step t - 1        poison the slot of h(t - 1), write out the results of step t - 1
//         are there                                   wait for the copies of Wx(t + 1)
//       poll all of h(t), multiply                    signal `ready`
//       pointwise step, send h(t + 1)                 ask for the Wx that goes where Wx(t) was
//       wait for `ready`
//       read Wx(t + 1), leave the results
//
// Who signals does not wait, and waits before it signals again. h(t + 2) is sent after `ready` of step t, and so after the
// poison that was there before it: four slots of h are enough, as they are without these warps.
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "cluster_forward_transfers.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, ClusterTiling tiling, Save save, Sequences sequences = Sequences{}>
struct ClusterForward : ClusterForwardTransfers<Cell, Type, shape, tiling, save, sequences> {
    using Base = ClusterForwardTransfers<Cell, Type, shape, tiling, save, sequences>;
    using typename Base::Rows, typename Base::Elements, typename Base::Mail, typename Base::Ring, typename Base::Matrix,
        typename Base::Partial;
    using Base::states, Base::gates, Base::units, Base::unit_warps, Base::stepping, Base::threads, Base::k_tiles, Base::rows,
        Base::unit_groups, Base::column_tiles, Base::columns, Base::apart, Base::shared_polls, Base::meetings,
        Base::place_threads, Base::arrays, Base::stage_bytes, Base::ring_at, Base::ring_bytes, Base::weights_at, Base::partial_at,
        Base::in, Base::lane, Base::g, Base::j, Base::warp, Base::unit_warp, Base::part, Base::rank, Base::head, Base::first_row,
        Base::first_unit, Base::place_unit, Base::own, Base::shared, Base::tile, Base::stores, Base::result_at,
        Base::prepare_stores, Base::prepare_transfers, Base::begin_copy, Base::write_results, Base::write_rest, Base::next_stage;

    // ---- registers that live through the sequence ----
    Matrix weights;
    float bias[gates][unit_groups];
    float state[unit_groups][column_tiles][columns][states];
    Mail mail;
    Restarts<sequences, rows, 1> anew;
    unsigned restarts = 0;    // the rows that begin anew after this step
    unsigned running = ~0u;  // those of which it is one of the sequence's
    TILESMITH_STAMPED(mutable Stamps stamps;)

    /// Load this lane's part of R.
    TILESMITH_DEVICE void load_weights() {
        weights.load(shared + weights_at + warp * Matrix::shared_bytes, lane, [&](int tile, int k_tile, int upper) {
            const int k = (part * k_tiles + k_tile) * 32 + j * 8;
            return Rows::template load<shape>(in.r, head, first_unit, tile * 16 + upper * 8 + g, k);
        });
    }

    /// Bring the initial states to the registers of the lanes that own them.
    TILESMITH_DEVICE void load_states() {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                state[unit_group][column_tile][column][s] = initial_state(s, unit_group, column_tile, column);
            }
        });
    }

    TILESMITH_DEVICE float initial_state(int s, int unit_group, int column_tile, int column) const {
        unsigned short word = 0;
        if (in.initial != nullptr && own.real(unit_group, column_tile, column))
            word = load_global_16(in.initial + own.state_index(s, unit_group, column_tile, column));
        return to_real<Type>(word);
    }

    TILESMITH_DEVICE bool begins_anew(int column_tile, int column) const {
        return sequences.resets && (restarts >> own.row(column_tile, column) & 1) != 0;
    }

    // ---- one step ----

    using Inputs = unsigned[unit_groups][column_tiles][Ring::words];

    TILESMITH_DEVICE static float input(const Inputs& wx, int gate, int unit_group, int column_tile, int column) {
        return has(Cell::input, gate) ? Ring::value(wx[unit_group][column_tile], rank_among(Cell::input, gate), column) : 0.0f;
    }

    // The sequences of a tile of 8 columns are a recurrence of their own: a step takes one such tile after the other, and the h
    // of one travels while the warps are busy with the next.
    static constexpr int tile_rows = rows / column_tiles;

    template <class Function>
    TILESMITH_DEVICE static void for_each_column_tile(Function function) {
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile) function(column_tile);
    }

    static constexpr int polled_barrier = meetings + (apart ? 3 : 1);

    /// Polls until no lane finds poison. poll(): the largest of what a lane finds.
    template <class Poll>
    TILESMITH_DEVICE static void await(Poll poll) {
        for (unsigned rounds = 0; any_lane(poll() == poison);) poll_again(rounds);
    }

    /// Waits until all of a slot's column tile has come: a part by each thread that steps, and then these meet.
    TILESMITH_DEVICE void await_tile(SharedAddress hidden, int column_tile) const {
        constexpr int chunks = Mail::sent_chunks / column_tiles;
        const int thread = static_cast<int>(thread_index());
        const SharedAddress first = hidden + (thread / tile_rows * rows + column_tile * tile_rows + thread % tile_rows) * chunk_bytes;
        await([&] {
            unsigned newest = 0;
#pragma unroll
            for (int i = 0; i < ceil_div(chunks, stepping); ++i)
                if ((i + 1) * stepping <= chunks || thread + i * stepping < chunks)
                    newest = max(newest, Mail::newest(poll_128(first + i * stepping * column_tiles * chunk_bytes)));
            return newest;
        });
        sync_named(polled_barrier, stepping);
    }

    /// sums = R h of this warp's units and part of K and of a column tile, and in part 0 what the gates have besides. Waits
    /// until all of that h has come.
    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, const Inputs& wx, SharedAddress hidden, int column_tile) const {
        const typename Matrix::template Places<typename Mail::Layout> places(hidden, part * k_tiles * 4, lane);
        uint4 words[Matrix::reads];
        if constexpr (shared_polls)
            await_tile(hidden, column_tile);
        else
            await([&] {
                unsigned newest = 0;
#pragma unroll
                for (int read = 0; read < Matrix::reads; ++read) {
                    words[read] = poll_128(places.at(read * Matrix::k_tiles_per_read, column_tile));
                    newest = max(newest, Mail::newest(words[read]));
                }
                return newest;
            });
        TILESMITH_STAMPED(stamps.mark(Phase::exchange);)
        weights.product(
            sums,
            [&](int k_tile, uint4(&b)[1]) {
                b[0] = shared_polls ? load_shared_128(places.at(k_tile, column_tile)) : words[k_tile / Matrix::k_tiles_per_read];
            },
            [&](int tile, int, int i) {
                if (columns == 1 && i % 2 == 1) return 0.0f;
                return Rows::of_row(tile, i / 2, [&](int gate, int unit_group) {
                    return bias[gate][unit_group] + input(wx, gate, unit_group, column_tile, i % 2);
                });
            });
    }

    using Results = float[unit_groups][column_tiles][columns][arrays];

    /// The pointwise step of the warp's elements of a column tile, and h sent to where h(t + 1) goes.
    TILESMITH_DEVICE void step(Results& results, const typename Matrix::Sums& sums, const Inputs& wx, int t, int column_tile) {
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column = 0; column < columns; ++column) {
                float gate[gates];
#pragma unroll
                for (int q = 0; q < gates; ++q)
                    gate[q] = has(Cell::recurrent, q) ? Rows::product(sums, q, unit_group, 0, column)
                                                      : bias[q][unit_group] + input(wx, q, unit_group, column_tile, column);
                const bool runs = !sequences.lengths || (running >> own.row(column_tile, column) & 1) != 0;
                step_element<Cell, Type, save>(gate, state[unit_group][column_tile][column],
                                               results[unit_group][column_tile][column], own, unit_group, runs);
            }
        mail.send(Mail::slot_of(t + 1), column_tile, [&](int unit_group, int column) {
            if (begins_anew(column_tile, column)) return initial_state(0, unit_group, column_tile, column);
            return results[unit_group][column_tile][column][0];
        });
        if (restarts == 0) return;
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column = 0; column < columns; ++column)
#pragma unroll
                for (int s = 0; s < states; ++s)
                    if (begins_anew(column_tile, column))
                        state[unit_group][column_tile][column][s] = initial_state(s, unit_group, column_tile, column);
    }

    /// Find out what sequences do in step t, and after it.
    TILESMITH_DEVICE void look_at(int t) {
        restarts = anew.take(tile, t + 1);
        running = tile.running(t);
    }

    /// What the warps that own units make of h(t), and send. Where K is split, the other parts' warps do theirs.
    TILESMITH_DEVICE void advance(Results& results, const Inputs& wx, int t) {
        for_each_column_tile([&](int column_tile) {
            typename Matrix::Sums sums;
            multiply(sums, wx, shared + Mail::slot_of(t), column_tile);
            TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
            const int buffer = (t * column_tiles + column_tile) & 1;
            if (Partial::combine(sums, shared + partial_at + buffer * Partial::bytes, unit_warp, part, lane, [&] { meet_parts(); })) {
                TILESMITH_STAMPED(if (tiling.k_split > 1) stamps.mark(Phase::sums);)
                step(results, sums, wx, t, column_tile);
                TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
            }
        });
    }

    /// To where they are written out from.
    TILESMITH_DEVICE void leave(const Results& results) const {
        stores.store(
            own, 0,
            [&](int array, int unit_group, int column_tile, int column) { return results[unit_group][column_tile][column][array]; },
            [&](int array, int row, int unit) { return result_at(array, row, unit - place_unit); });
    }

    TILESMITH_DEVICE void meet_parts() const { sync_named(1 + unit_warp, 32 * tiling.k_split); }

    TILESMITH_DEVICE void begin() const {
        mail.begin(in.initial, in.batch, head, first_row, threads, own.order);
        sync_cluster();  // every block has its first h, and poison where it waits for the next
    }

    // ---- warps that do everything themselves ----

    // The last of the block.
    static constexpr int poisoners = apart ? place_threads : tiling.k_split == 1 ? threads : threads - 32 * unit_warps;

    TILESMITH_DEVICE void run_alone() {
        prepare_stores();
        prepare_transfers();
        if (part == 0)
            for (int stage = 0; stage < tiling.num_stages - 1; ++stage) begin_copy(stage < tile.steps, stage * stage_bytes);
        begin();

        const SharedAddress read_inputs = shared + ring_at + unit_warp * ring_bytes;
        int stage_offset = 0;  // of the stage that this step reads
        int refill_offset = (tiling.num_stages - 1) * stage_bytes;
        TILESMITH_STAMPED(stamps.start(in.stamps, warp == 0);)

        for (int t = 0; t < tile.steps; ++t) {
            Inputs wx{};
            if (part == 0) {
                look_at(t);
                cp_async_wait<tiling.num_stages - 2>();
                sync_warp();  // all lanes' copies are there; the results of the step before have left
                Ring::load(wx, read_inputs + stage_offset, lane);
            }
            TILESMITH_STAMPED(stamps.mark(Phase::transfers);)
            Results results;
            advance(results, wx, t);  // which others wait for: it comes first
            if (part == 0) {
                leave(results);
                sync_warp();
                write_results();
                begin_copy(t + tiling.num_stages - 1 < tile.steps, refill_offset);
                refill_offset = stage_offset;
                stage_offset = next_stage(stage_offset);
            }
            // h(t) has come, so everybody has read h(t - 1). Where K is split, by the warps that have nothing else to do.
            if (tiling.k_split == 1 || part > 0) mail.template poison<poisoners>(Mail::slot_of(t + Mail::slots - 1));
            TILESMITH_STAMPED(stamps.step(Phase::transfers);)
        }
        TILESMITH_STAMPED(stamps.finish();)
        if (part == 0) write_rest();
    }

    // ---- warps that step, and transfer warps ----

    static constexpr int left_barrier = meetings + 1, ready_barrier = meetings + 2, between = 32 * unit_warps + place_threads;

    TILESMITH_DEVICE static void signal_left() { arrive_named(left_barrier, between); }
    TILESMITH_DEVICE static void await_left() { sync_named(left_barrier, between); }
    TILESMITH_DEVICE static void signal_ready() { arrive_named(ready_barrier, between); }
    TILESMITH_DEVICE static void await_ready() { sync_named(ready_barrier, between); }

    TILESMITH_DEVICE void run_steps() {
        prepare_stores();
        begin();

        const SharedAddress read_inputs = shared + ring_at + 2 * units * unit_warp;
        int stage_offset = 0;  // of the stage that the next step reads
        Inputs wx{};
        const auto take_inputs = [&] {
            Ring::load(wx, read_inputs + stage_offset, lane);
            stage_offset = next_stage(stage_offset);
        };
        if (part == 0) {
            await_ready();
            take_inputs();
        }
        TILESMITH_STAMPED(stamps.start(in.stamps, warp == 0);)
        for (int t = 0; t < tile.steps; ++t) {
            if (part == 0) {
                signal_left();
                look_at(t);
            }
            TILESMITH_STAMPED(stamps.mark(Phase::transfers);)
            Results results;
            advance(results, wx, t);
            TILESMITH_STAMPED(if (part > 0) stamps.step(Phase::transfers);)
            if (part > 0) continue;
            await_ready();  // the next inputs are there; the results of the step before have left
            TILESMITH_STAMPED(stamps.mark(Phase::meeting);)
            if (t + 1 < tile.steps) take_inputs();
            leave(results);
            TILESMITH_STAMPED(stamps.step(Phase::transfers);)
        }
        TILESMITH_STAMPED(stamps.finish();)
        if (part == 0) signal_left();
    }

    TILESMITH_DEVICE void run_transfers() {
        prepare_transfers();
        for (int stage = 0; stage < tiling.num_stages; ++stage) begin_copy(stage < tile.steps, stage * stage_bytes);
        begin();

        cp_async_wait<tiling.num_stages - 1>();
        signal_ready();
        int stage_offset = 0;  // of the stage that has been read
        for (int t = 0; t < tile.steps; ++t) {
            await_left();
            mail.template poison<poisoners>(Mail::slot_of(t + Mail::slots - 1));
            if (t > 0) write_results();
            cp_async_wait<tiling.num_stages - 2>();
            signal_ready();
            begin_copy(t + tiling.num_stages < tile.steps, stage_offset);
            stage_offset = next_stage(stage_offset);
        }
        await_left();
        write_results();
        write_rest();
    }

    TILESMITH_DEVICE void run() {
        mail.prepare(shared, static_cast<int>(thread_index()) - (threads - poisoners));
        tile.prepare(in, first_row, lane, first_row);
        if (apart && static_cast<int>(thread_index()) >= stepping) {
            run_transfers();
            sync_cluster();  // as below
            return;
        }
        load_weights();
        load_bias<Type, Cell>(bias, in.b, part == 0 ? ~0u : 0u, own);
        load_states();
        anew.begin(tile, 1);
        mail.prepare_sending(own, rank);
        if (apart)
            run_steps();
        else
            run_alone();
        sync_cluster();  // the last messages have come: a block's memory may go
        if (part == 0) store_last<Type>(in.last, own, state);
    }
};

}  // namespace tilesmith
