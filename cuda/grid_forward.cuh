// The grid schedule, forward: blocks all over the GPU share the recurrent matrix R of one head, each with all gates of its
// part of the units, and run a tile of the batch through all time steps. All blocks of the launch run at the same time.
//
// A warp multiplies for `units_per_warp` units with all their gates and a part of K. It polls the part of h that it
// multiplies, straight from global memory into the registers that the tensor cores take it from (grid_mail.cuh), so that each
// word of h is loaded once by a block for each group of units. Then the warps of the block meet, and some of them add the
// parts' sums: each owns 8 units of some sequences, their states, their inputs, which come through a ring of its own, and
// their results. The meeting also tells them that all of h has come, where a warp has seen but its part.
//
// Those that step are the first of the warps that multiply, or warps of their own: then those that multiply go on when they
// have stored their sums, to wait until their block has sent, and those that step only wait for sums. When a warp polls is
// what decides how long a step takes, since polls that find nothing hold up the words they ask for: `pause` and
// `owner_pause` say when.
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "array_writer.cuh"
#include "block_sums.cuh"
#include "forward_step.cuh"
#include "grid_mail.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "lane_stores.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/grid/forward.py states their constraints.
struct GridTiling {
    int blocks;           // that share a head
    int units_per_warp;   // 8: a 16-row tile holds two gates of 8 units; 16: one gate of 16 units
    int batch_tile;       // sequences that these blocks run: 4, or a multiple of 8
    int epilogue_rows;    // sequences of a warp that runs the step of 8 units: all of the tile, or a part
    int k_split;          // warps that share a group of units, each with a part of the previous units
    int k_tiles_in_registers;  // of a warp's groups of 32 previous units, how many keep their part of R in registers
    int accumulators;           // independent accumulators per tile, so that matrix instructions overlap
    int num_stages;         // stages of the ring that holds Wx
    int step_warps;   // 0: the first of those that multiply run the step; n: warps of their own, which add the sums of the
                      // parts of K in n groups, as they come
    int pause;        // clocks, after its block has sent, until a warp that does not step polls; -1: it polls as soon as it can
    int owner_pause;  // clocks that a warp which steps and multiplies waits, when it has done its step, before it polls
};

template <class Cell, class Type, FixedShape shape, GridTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct GridForward {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);

    static constexpr int blocks = tiling.blocks;
    static constexpr int units = tiling.units_per_warp;
    static constexpr int unit_warps = ceil_div(ceil_div(D, units), blocks);  // of a block
    static constexpr int product_warps = unit_warps * tiling.k_split;
    static constexpr int sent_units = blocks * unit_warps * units;

    static constexpr int k_tiles = ceil_div(ceil_div(sent_units, 32), tiling.k_split);  // of 32 previous units, per warp
    static constexpr int padded_k = 32 * k_tiles * tiling.k_split;

    using Rows = GateRows<Cell, units>;
    static constexpr int tiles = Rows::tiles;  // of 16 rows, per warp
    static constexpr int rows = tiling.batch_tile;

    // Those that run the step.
    static constexpr int epilogue_rows = tiling.epilogue_rows;
    static constexpr int row_groups = rows / epilogue_rows;
    static constexpr int unit_groups = units / 8;  // of a warp that multiplies; one that runs the step has one
    static constexpr int epilogue_warps = unit_warps * unit_groups * row_groups;
    static constexpr bool apart = tiling.step_warps != 0;
    static constexpr int sum_groups = maximum(tiling.step_warps, 1);
    static constexpr int warps = product_warps + (apart ? epilogue_warps : 0);  // those that multiply come first
    static constexpr int threads = 32 * warps;
    /// Whether a warp that does not step fences for its block, while the others step; else each thread for itself.
    static constexpr bool fenced_apart = epilogue_warps < warps;
    static constexpr bool paced = tiling.pause >= 0;
    using Elements = LaneElements<shape, 8, epilogue_rows, sent_units, sequences.lengths>;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;  // elements per lane and column tile

    static_assert(tiling.num_stages >= 2, "the ring needs a stage to read and a stage to fill");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(rows % epilogue_rows == 0 && epilogue_warps <= warps, "each warp runs the step of one group at most");
    static_assert(!paced || fenced_apart, "there are warps that wait for those that send");
    static_assert(!apart || paced, "a warp overwrites no sums before its block has sent what they make");
    static_assert(tiling.k_split % sum_groups == 0, "groups have as many parts");
    static_assert(!apart || tiling.owner_pause == 0, "who does not poll does not pause");
    static_assert((blocks - 1) * unit_warps * units < D, "every block owns units");

    // ---- shared memory ----
    using Mail = GridMail<Type, shape, rows, epilogue_rows, sent_units, padded_k>;
    static constexpr int mail_words = Mail::bytes / 4;  // of a head and tile
    static constexpr int row_bytes = chunk_bytes;       // 8 units of one sequence
    // What is written out for every step, of a warp's units: [array][sequence][unit].
    static constexpr int arrays = result_arrays<Cell, save>;
    static constexpr int array_bytes = epilogue_rows * row_bytes;
    static constexpr int staged_bytes = arrays * array_bytes;  // per epilogue warp
    using Ring = InputRing<Type, shape, input_gates, epilogue_rows, 32, row_bytes, 8, OneWarp>;
    static constexpr int stage_bytes = Ring::stage_bytes;
    static constexpr int ring_at = epilogue_warps * staged_bytes;
    static constexpr int ring_bytes = tiling.num_stages * stage_bytes;  // per epilogue warp
    // the part of R that is not in registers: [warp][group][tile][half][lane]
    static constexpr int weights_at = ring_at + epilogue_warps * ring_bytes;
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, rows, tiling.accumulators>;
    static constexpr int sums_at = weights_at + product_warps * Matrix::shared_bytes;
    using BlockSums = tilesmith::BlockSums<Matrix, tiles, unit_warps, tiling.k_split>;
    static constexpr int shared_bytes = sums_at + 2 * BlockSums::bytes;

    // ---- the thread's place ----
    const ForwardArguments& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = static_cast<int>(thread_index()) / 32;
    const int rank = static_cast<int>(block_x()) % blocks;
    const int head = static_cast<int>(block_x()) / blocks;
    const SharedAddress shared = shared_memory();

    // ... in the product
    const int unit_warp = warp % unit_warps;
    const int part = warp / unit_warps;

    // ... in the step
    const bool owner = apart ? warp >= product_warps : warp < epilogue_warps;
    const int step_warp = apart && owner ? warp - product_warps : warp;
    const int row_group = step_warp % row_groups;
    const int unit_group = step_warp / row_groups;  // of the block
    const int first_unit = (rank * unit_warps * unit_groups + unit_group) * 8;
    const int first_row = static_cast<int>(block_y()) * rows + row_group * epilogue_rows;
    const Elements own{.batch = in.batch, .warp = first_unit / 8, .head = head, .first_row = first_row, .g = g, .j = j,
                       .order = sequences.lengths ? in.order : nullptr};

    // ---- registers that live through the sequence ----
    Matrix weights;
    float bias[gates][1];
    float state[1][column_tiles][columns][states];
    Mail mail;
    TileSequences<sequences, epilogue_rows> tile{in.seq};
    Restarts<sequences, epilogue_rows, 1> anew;

    /// Load this lane's part of R.
    TILESMITH_DEVICE void load_weights() {
        const int first = (rank * unit_warps + unit_warp) * units;
        constexpr int at_once = vector_width(D) == 8 ? 4 : 1;
        weights.load(shared + weights_at + warp * Matrix::shared_bytes, lane, [&](int tile, int k_tile, int upper) {
            const int k = (part * k_tiles + k_tile) * 32 + j * 8;
            if (upper == 0 && k_tile % at_once == 0) sync_warp();  // no more loads under way than there are registers for
            return Rows::template load<shape>(in.r, head, first, tile * 16 + upper * 8 + g, k);
        });
    }

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
        unsigned short word = 0;
        if (owner && in.initial != nullptr && own.real(group, column_tile, column))
            word = load_global_16(in.initial + own.state_index(s, group, column_tile, column));
        return to_real<Type>(word);
    }

    // ---- Wx in, results out ----

    Ring ring;
    LaneStores<Type, shape, 8, epilogue_rows, arrays, how> stores;
    ArrayWriter<shape, epilogue_rows, 32, arrays, 8, OneWarp> writer;

    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        return shared + step_warp * staged_bytes + array * array_bytes + row * row_bytes + 2 * unit;
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

    TILESMITH_DEVICE void fill_padding() const {
        if (padded_k != sent_units && rank == 0) mail.fill(static_cast<int>(thread_index()), threads);
    }

    TILESMITH_DEVICE void begin_copy(int stage_offset) {
        ring.begin_copy(stage_offset, [](int) { return input_gates * shape.heads * D; });
    }

    // ---- one step ----

    using Inputs = unsigned[1][column_tiles][Ring::words];

    // Named barriers: at one those that have sent signal, and the others wait before they poll; at the others, where warps of
    // their own step, those that multiply signal that the sums of a group of parts are there.
    static constexpr int sent_barrier = 1, sums_barrier = 2;
    static constexpr int parts_of_group = tiling.k_split / sum_groups;
    static constexpr int sums_threads = 32 * (unit_warps * parts_of_group + epilogue_warps);

    TILESMITH_DEVICE static void signal_sent() {
        if constexpr (paced) arrive_named(sent_barrier, threads);
    }
    /// Until a poll is likely to find what has been sent, of a step but the first.
    TILESMITH_DEVICE void await_sent() const {
        if (!apart && owner) {
            if constexpr (tiling.owner_pause > 0) pause(tiling.owner_pause);
        } else if constexpr (paced) {
            sync_named(sent_barrier, threads);
            if constexpr (tiling.pause > 0) pause(tiling.pause);
        }
    }

    /// sums = R h of this warp's units and part of K. Waits until all of that h has come.
    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, const unsigned char* hidden) const {
        const typename Matrix::template Places<typename Mail::Layout> places(0, part * k_tiles * 4, lane);
        uint4 words[Matrix::reads][Matrix::column_tiles];
        Mail::template wait<Matrix>(words, hidden, places);
        weights.product(
            sums,
            [&](int k_tile, uint4(&b)[Matrix::column_tiles]) {
#pragma unroll
                for (int column_tile = 0; column_tile < Matrix::column_tiles; ++column_tile)
                    b[column_tile] = words[k_tile / Matrix::k_tiles_per_read][column_tile];
            },
            [](int, int, int) { return 0.0f; });
    }

    /// What `count` parts of K have made, from the first_part-th on, of a gate that has a product. sums: where all lie.
    template <int count>
    TILESMITH_DEVICE float sum_of_parts(SharedAddress sums, int first_part, int rank_of_gate, int column_tile, int column) const {
        const int tile = units == 8 ? rank_of_gate / 2 : rank_of_gate;
        const int upper = units == 8 ? rank_of_gate % 2 : unit_group % unit_groups;
        const int plane = row_group * (BlockSums::planes / row_groups) + column_tile * columns + column;
        return BlockSums::template sum<count>(sums, unit_group / unit_groups, tile, upper, plane, lane, first_part);
    }

    /// What a gate has before the step: its bias, its input and its product, product(rank_of_gate, column_tile, column).
    template <class Product>
    TILESMITH_DEVICE float gate_sum(int gate, const Inputs& wx, Product product, int column_tile, int column) const {
        float sum = bias[gate][0];
        if (has(Cell::input, gate)) sum += Ring::value(wx[0][column_tile], rank_among(Cell::input, gate), column);
        if (!has(Cell::recurrent, gate)) return sum;
        return sum + product(rank_among(Cell::recurrent, gate), column_tile, column);
    }

    static constexpr int last_stage = (tiling.num_stages - 1) * stage_bytes;

    TILESMITH_DEVICE void begin_steps() {
        for (int stage = 0; stage < tiling.num_stages - 1; ++stage) {
            if (stage < tile.steps) begin_copy(stage * stage_bytes);
            cp_async_commit();
        }
        anew.begin(tile, 1);
        mail.send(Mail::slot_of(0), [&](int, int column_tile, int column) { return state[0][column_tile][column][0]; });
    }

    /// An owner's inputs of step t. restarts: rows that begin anew after it; running: those of which it is a step.
    TILESMITH_DEVICE void take_inputs(Inputs& wx, unsigned& restarts, unsigned& running, int t, SharedAddress from, int stage_offset) {
        restarts = anew.take(tile, t + 1);
        running = tile.running(t);
        cp_async_wait<tiling.num_stages - 2>();
        sync_warp();  // all lanes' copies are there; the results of the step before have left
        Ring::load(wx, from + stage_offset, lane);
    }

    TILESMITH_DEVICE SharedAddress sums_of(int t) const { return shared + sums_at + (t & 1) * BlockSums::bytes; }

    TILESMITH_DEVICE void store_product(int t) const {
        typename Matrix::Sums sums;
        if (t > 0) await_sent();
        multiply(sums, mail.at + Mail::slot_of(t));
        BlockSums::store(sums, sums_of(t), unit_warp, part, lane);
    }

    /// For what the block has poisoned, by a warp that waits for those that step.
    TILESMITH_DEVICE void fence_for_block() const {
        if (fenced_apart && warp == product_warps - 1) fence_global();
    }

    /// Step t of what the warp owns, from its inputs and the products.
    template <class Product>
    TILESMITH_DEVICE void step(int t, const Inputs& wx, unsigned restarts, unsigned running, Product product, int& stage_offset,
                               int& refill_offset) {
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
            signal_sent();
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
        if (t + tiling.num_stages - 1 < tile.steps) begin_copy(refill_offset);
        cp_async_commit();
        refill_offset = stage_offset;
        stage_offset = stage_offset == last_stage ? 0 : stage_offset + stage_bytes;
        mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));  // h(t) has come, so everybody has read h(t - 1)
        if (!fenced_apart) fence_global();
    }

    /// The steps of a tile, by warps of which the first also step.
    TILESMITH_DEVICE void run_together() {
        const SharedAddress read_inputs = shared + ring_at + step_warp * ring_bytes;
        int stage_offset = 0, refill_offset = last_stage;  // of the stages that a step reads and fills
        for (int t = 0; t < tile.steps; ++t) {
            Inputs wx{};
            unsigned restarts = 0, running = ~0u;
            if (owner) take_inputs(wx, restarts, running, t, read_inputs, stage_offset);
            store_product(t);
            sync_block();  // all of h(t) has come, and its products are there
            fence_for_block();
            if (!owner) continue;
            const auto product = [&](int rank_of_gate, int column_tile, int column) {
                return sum_of_parts<tiling.k_split>(sums_of(t), 0, rank_of_gate, column_tile, column);
            };
            step(t, wx, restarts, running, product, stage_offset, refill_offset);
        }
    }

    /// The same of a warp that multiplies, where others step. It fences a step earlier than where all meet: grid_mail.cuh.
    TILESMITH_DEVICE void run_products() {
        load_weights();
        for (int t = 0; t < tile.steps; ++t) {
            store_product(t);
            arrive_named(sums_barrier + part / parts_of_group, sums_threads);
            fence_for_block();
        }
    }

    /// And of one that steps.
    TILESMITH_DEVICE void run_steps() {
        const SharedAddress read_inputs = shared + ring_at + step_warp * ring_bytes;
        int stage_offset = 0, refill_offset = last_stage;
        for (int t = 0; t < tile.steps; ++t) {
            Inputs wx{};
            unsigned restarts = 0, running = ~0u;
            take_inputs(wx, restarts, running, t, read_inputs, stage_offset);
            float products[column_tiles][columns][Rows::product_gates];
#pragma unroll
            for (int group = 0; group < sum_groups; ++group) {
                sync_named(sums_barrier + group, sums_threads);  // in the end all of h(t) has come, and its products are there
                Elements::for_each([&](int, int column_tile, int column) {
#pragma unroll
                    for (int gate = 0; gate < Rows::product_gates; ++gate) {
                        const float sum = sum_of_parts<parts_of_group>(sums_of(t), group * parts_of_group, gate, column_tile, column);
                        float& product = products[column_tile][column][gate];
                        product = group == 0 ? sum : product + sum;
                    }
                });
            }
            const auto product = [&](int gate, int column_tile, int column) { return products[column_tile][column][gate]; };
            step(t, wx, restarts, running, product, stage_offset, refill_offset);
        }
    }

    TILESMITH_DEVICE void run() {
        tile.template prepare<rows>(in, first_row, lane, static_cast<int>(block_y()) * rows);
        if constexpr (apart) {
            prepare_mail();
            fill_padding();
            if (!owner) return run_products();
        } else {
            load_weights();
        }
        load_bias<Type, Cell>(bias, in.b, owner ? ~0u : 0u, own);
        load_states();
        prepare_transfers();
        if constexpr (!apart) prepare_mail();
        if (owner) begin_steps();
        if constexpr (apart) {
            run_steps();
        } else {
            fill_padding();
            run_together();
            if (!owner) return;
        }
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - tile.steps, [](int) { return shape.heads * D; });
        store_last<Type>(in.last, own, state);
    }
};

}  // namespace tilesmith
