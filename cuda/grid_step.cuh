// What the grid schedules' forward kernels do with the products of a step, whoever makes them: some warps of each block own
// units of some sequences, 8 units a warp, with their states, their inputs, which come through a ring of the warp's own, and
// their results; they run the step, send h to all blocks that share the head (grid_mail.cuh) and poison what all have read.
//
// Lanes: g = lane / 4, j = lane % 4.
#pragma once

#include "array_writer.cuh"
#include "forward_step.cuh"
#include "grid_mail.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "lane_stores.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"

namespace tilesmith {

/// How blocks share the units of a head, and warps those of a block.
struct GridShare {
    int blocks;         // that share a head
    int block_units;    // of a block, padding included: a multiple of 8
    int rows;           // sequences that these blocks run
    int epilogue_rows;  // of a warp that steps
    int num_stages;     // of the ring that holds Wx
    int padded_k;       // previous units, padding included, that a block multiplies
    int first_warp;     // of those that step
};

template <class Cell, class Type, FixedShape shape, GridShare share, Save save, Stores how, Sequences sequences>
struct GridStep {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);

    static constexpr int blocks = share.blocks;
    static constexpr int sent_units = blocks * share.block_units;
    static constexpr int padded_k = share.padded_k;
    static constexpr int rows = share.rows;
    static constexpr int epilogue_rows = share.epilogue_rows;
    static constexpr int row_groups = rows / epilogue_rows;
    static constexpr int epilogue_warps = share.block_units / 8 * row_groups;
    using Elements = LaneElements<shape, 8, epilogue_rows, sent_units, sequences.lengths>;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;  // elements per lane and column tile

    static_assert(share.num_stages >= 2, "the ring needs a stage to read and a stage to fill");
    static_assert(rows % epilogue_rows == 0, "each warp runs the step of one group at most");
    static_assert((blocks - 1) * share.block_units < D, "every block owns units");

    // ---- shared memory ----
    using Mail = GridMail<Type, shape, rows, epilogue_rows, sent_units, padded_k>;
    static constexpr int mail_words = Mail::bytes / 4;  // of a head and tile
    static constexpr int element = element_bytes<Type>;
    static constexpr int row_bytes = row_bytes_of<Type, epilogue_rows>(8);  // 8 units of one sequence
    // What is written out for every step, of a warp's units: [array][sequence][unit].
    static constexpr int arrays = result_arrays<Cell, save>;
    static constexpr int array_bytes = epilogue_rows * row_bytes;
    static constexpr int staged_bytes = arrays * array_bytes;  // per epilogue warp
    using Ring = InputRing<Type, shape, input_gates, epilogue_rows, 32, row_bytes, 8, OneWarp>;
    static constexpr int stage_bytes = Ring::stage_bytes;
    static constexpr int ring_at = epilogue_warps * staged_bytes;
    static constexpr int ring_bytes = share.num_stages * stage_bytes;  // per epilogue warp
    static constexpr int step_bytes = ring_at + epilogue_warps * ring_bytes;

    // ---- the thread's place ----
    const ForwardArgumentsOf<Element<Type>>& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = static_cast<int>(thread_index()) / 32;
    const int rank = static_cast<int>(block_x()) % blocks;
    const int head = static_cast<int>(block_x()) / blocks;
    const SharedAddress shared = shared_memory();

    static constexpr bool apart = share.first_warp > 0;
    const bool owner = apart ? warp >= share.first_warp : warp < epilogue_warps;
    const int step_warp = apart && owner ? warp - share.first_warp : warp;
    const int row_group = step_warp % row_groups;
    const int unit_group = step_warp / row_groups;  // of the block
    const int first_unit = (rank * (share.block_units / 8) + unit_group) * 8;
    const int first_row = static_cast<int>(block_y()) * rows + row_group * epilogue_rows;
    const Elements own{.batch = in.batch, .warp = first_unit / 8, .head = head, .first_row = first_row, .g = g, .j = j,
                       .order = sequences.lengths ? in.order : nullptr};

    // ---- registers that live through the sequence ----
    float bias[gates][1];
    float state[1][column_tiles][columns][states];
    Mail mail;
    TileSequences<sequences, epilogue_rows> tile{in.seq};
    Restarts<sequences, epilogue_rows, 1> anew;

    /// Bring the initial states to the registers of the lanes that own them.
    TILESMITH_DEVICE void load_states() {
        Elements::for_each([&](int group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                state[group][column_tile][column][s] = initial_state(s, group, column_tile, column);
            }
        });
    }

    TILESMITH_DEVICE float initial_state(int s, int group, int column_tile, int column) const {
        Element<Type> value = 0;
        if (owner && in.initial != nullptr && own.real(group, column_tile, column))
            value = load_element(in.initial + own.state_index(s, group, column_tile, column));
        return to_real<Type>(value);
    }

    // ---- Wx in, results out ----

    Ring ring;
    LaneStores<Type, shape, 8, epilogue_rows, arrays, how> stores;
    ArrayWriter<shape, epilogue_rows, 32, arrays, 8, OneWarp, Element<Type>> writer;

    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        return shared + step_warp * staged_bytes + array * array_bytes + row * row_bytes + element * unit;
    }

    TILESMITH_DEVICE void prepare_transfers() {
        ring.prepare(shared + ring_at + step_warp * ring_bytes, [&](int gate, int row, int unit) {
            const int sequence = sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));  // past the batch: any will do
            const long long step = static_cast<long long>(sequence) * in.seq * input_gates + gate;
            const int real_unit = sent_units == D ? first_unit + unit : minimum(first_unit + unit, D - Ring::width);
            return in.wx + (step * shape.heads + head) * D + real_unit;
        });
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        stores.prepare(own, lane, [&](int array, int row, int unit) { return result_at(array, row, unit - first_unit); });
        writer.prepare(
            in.batch - first_row, D - first_unit,
            [&](int array, int row, int unit) {
                long long sequence = first_row + row;
                if constexpr (sequences.lengths) sequence = sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
                return result_array<Cell, save>(in, array, array_elements) +
                       (sequence * in.seq * shape.heads + head) * D + first_unit + unit;
            },
            [&](int array, int row, int unit) { return result_at(array, row, unit); });
    }

    TILESMITH_DEVICE void prepare_mail() {
        const int tiles_of_batch = ceil_div(in.batch, rows);
        const long long tile = static_cast<long long>(head) * tiles_of_batch + block_y();
        mail.prepare(in.mail + tile * mail_words, own, row_group * epilogue_rows);
    }

    TILESMITH_DEVICE void begin_copy(int stage_offset) {
        ring.begin_copy(stage_offset, [](int) { return input_gates * shape.heads * D; });
    }

    // ---- one step ----

    using Inputs = typename Ring::Word[1][column_tiles][Ring::words];

    /// What a gate has before the step: its bias, its input and its product, product(rank_of_gate, column_tile, column).
    template <class Product>
    TILESMITH_DEVICE float gate_sum(int gate, const Inputs& wx, Product product, int column_tile, int column) const {
        float sum = bias[gate][0];
        if (has(Cell::input, gate)) sum += Ring::value(wx[0][column_tile], rank_among(Cell::input, gate), column);
        if (!has(Cell::recurrent, gate)) return sum;
        return sum + product(rank_among(Cell::recurrent, gate), column_tile, column);
    }

    static constexpr int last_stage = (share.num_stages - 1) * stage_bytes;

    TILESMITH_DEVICE void begin_steps() {
        for (int stage = 0; stage < share.num_stages - 1; ++stage) {
            if (stage < tile.steps) begin_copy(stage * stage_bytes);
            cp_async_commit();
        }
        anew.begin(tile, 1);
        mail.send(Mail::slot_of(0), [&](int, int column_tile, int column) { return state[0][column_tile][column][0]; });
    }

    /// Where the warp's ring of inputs lies, and which stages of it a step reads and fills.
    struct Stages {
        int read = 0, fill = last_stage;
        TILESMITH_DEVICE void advance() {
            fill = read;
            read = read == last_stage ? 0 : read + stage_bytes;
        }
    };

    /// An owner's inputs of step t. restarts: rows that begin anew after it; running: those of which it is a step. pending:
    /// newer groups of copies than those of these inputs, of which it must be sure that there are so many.
    template <int pending = share.num_stages - 2>
    TILESMITH_DEVICE void take_inputs(Inputs& wx, unsigned& restarts, unsigned& running, int t, int stage_offset) {
        restarts = anew.take(tile, t + 1);
        running = tile.running(t);
        cp_async_wait<pending>();
        sync_warp();  // all lanes' copies are there; the results of the step before have left
        Ring::load(wx, shared + ring_at + step_warp * ring_bytes + stage_offset, lane);
    }

    /// Step t of what the warp owns, from its inputs and the products. sent(): called when h is on its way. To be followed by
    /// a fence for what it poisons, of this thread or, between two meetings, of one of the block.
    template <class Product, class Sent>
    TILESMITH_DEVICE void step(int t, const Inputs& wx, unsigned restarts, unsigned running, Product product, Stages& stages, Sent sent) {
        float results[1][column_tiles][columns][arrays];
        Elements::for_each([&](int group, int column_tile, int column) {
            float gate[gates];
#pragma unroll
            for (int q = 0; q < gates; ++q) gate[q] = gate_sum(q, wx, product, column_tile, column);
            const bool runs = !sequences.lengths || (running >> own.row(column_tile, column) & 1) != 0;
            step_element<Cell, Type, save>(gate, state[group][column_tile][column], results[group][column_tile][column], own, group, runs);
        });
        // First what the others wait for.
        const auto begins_anew = [&](int column_tile, int column) {
            return sequences.resets && (restarts >> own.row(column_tile, column) & 1) != 0;
        };
        if (t + 1 < tile.steps) {
            mail.send(Mail::slot_of(t + 1), [&](int, int column_tile, int column) {
                if (begins_anew(column_tile, column)) return initial_state(0, 0, column_tile, column);
                return results[0][column_tile][column][0];
            });
            sent();
        }
        if (restarts != 0)
            Elements::for_each([&](int group, int column_tile, int column) {
#pragma unroll
                for (int s = 0; s < states; ++s)
                    if (begins_anew(column_tile, column))
                        state[group][column_tile][column][s] = initial_state(s, group, column_tile, column);
            });
        stores.store(
            own, 0,
            [&](int array, int group, int column_tile, int column) { return results[group][column_tile][column][array]; },
            [&](int array, int row, int unit) { return result_at(array, row, unit - first_unit); });
        sync_warp();
        writer.write(0, [](int) { return shape.heads * D; });
        if (t + share.num_stages - 1 < tile.steps) begin_copy(stages.fill);
        cp_async_commit();
        stages.advance();
        mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));  // h(t) has come, so everybody has read h(t - 1)
    }

    /// After the last step.
    TILESMITH_DEVICE void finish() {
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - tile.steps, [](int) { return shape.heads * D; });
        store_last<Type>(in.last, own, state);
    }
};

}  // namespace tilesmith
