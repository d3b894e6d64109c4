// The resident schedule, forward: one block holds the recurrent matrix R of one head and runs a tile of the batch
// through all time steps.
//
// Every step multiplies R by the previous h on the tensor cores: rows of the product are gates of units, columns are
// sequences of the batch. A warp owns `units_per_warp` units with all their gates, laid out so that every gate of a
// unit ends in the same lane; the other states of a unit therefore live in that lane's registers for the whole
// sequence, and the pointwise step needs no exchange. h travels through shared memory in two buffers, and one
// barrier a step is all the synchronisation there is (two where K is split).
//
// Wx arrives through a ring in shared memory, and results leave through buffers there (resident_transfers.cuh). Or x
// arrives, and the kernel multiplies it itself, a step ahead (input_product.cuh).
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "resident_transfers.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, ResidentTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct Resident : ResidentTransfers<Cell, Type, shape, tiling, save, how, sequences> {
    using Base = ResidentTransfers<Cell, Type, shape, tiling, save, how, sequences>;
    using typename Base::Rows, typename Base::Elements, typename Base::Layout, typename Base::Input, typename Base::Ring,
        typename Base::Matrix, typename Base::Flags;
    using Base::D, Base::states, Base::gates, Base::units, Base::element, Base::threads, Base::k_tiles, Base::tiles, Base::unit_groups,
        Base::column_tiles, Base::columns, Base::chunk, Base::arrays, Base::hidden_bytes, Base::zeros_at, Base::buffer_bytes,
        Base::multiplies_input, Base::stage_bytes, Base::ring_at, Base::weights_at, Base::input_weights_at, Base::partial_at,
        Base::partial_tiles, Base::part_bytes, Base::initial_at, Base::initial_bytes, Base::flags_at, Base::in, Base::lane,
        Base::g, Base::j, Base::warp, Base::unit_warp, Base::part, Base::head, Base::first_row, Base::own, Base::shared,
        Base::tile, Base::input, Base::result_at, Base::stores, Base::writer, Base::prepare_transfers, Base::begin_copy,
        Base::write_out;

    // ---- registers that live through the sequence ----
    Matrix weights;
    float bias[gates][unit_groups];
    float state[unit_groups][column_tiles][columns][states];
    TILESMITH_STAMPED(Stamps stamps;)
    Flags flags{shared + flags_at};
    ResetRows<sequences, 1> anew;
    unsigned restarts = 0;  // the rows that begin anew at the step that comes next
    float initial[unit_groups][column_tiles][columns][states];  // unless sequences begin anew, unused
    using Places = typename Matrix::template Places<Layout>;
    Places reads[column_tiles];  // where this lane reads the next step's h, if its buffer is the first
    int next_end = 0;            // the next step that is the first or the second behind a sequence's end

    /// Load this lane's part of R, and of W.
    TILESMITH_DEVICE void load_weights() {
        if constexpr (multiplies_input)
            input.load(in.w, shared + input_weights_at + warp * Input::Matrix::shared_bytes, head, unit_warp * units, part, lane);
        const auto row = [&](int tile, int k_tile, int upper) {
            const int k = (part * k_tiles + k_tile) * k_tile_depth<Type> + j * chunk_elements<Type>;
            return Rows::template load<shape>(in.r, head, unit_warp * units, tile * 16 + upper * 8 + g, k);
        };
        if constexpr (multiplies_input || Matrix::in_parts)
            weights.load_in_turn(shared + weights_at + warp * Matrix::shared_bytes, lane, row);
        else
            weights.load(shared + weights_at + warp * Matrix::shared_bytes, lane, row);
    }

    /// Load the biases of this lane's units; of the warps that share them, one has them.
    TILESMITH_DEVICE void load_biases() {
        load_bias<Type, Cell>(bias, in.b, part == 0 ? ~0u : 0u, own);
        if constexpr (multiplies_input) {
            if (in.input_bias == nullptr || part > 0) return;
#pragma unroll
            for (int q = 0; q < gates; ++q)
#pragma unroll
                for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
                    if (has(Cell::input, q) && own.unit(unit_group) < D)
                        bias[q][unit_group] += to_real<Type>(load_element(
                            in.input_bias + (rank_among(Cell::input, q) * shape.heads + head) * D + own.unit(unit_group)));
        }
    }

    /// Bring the initial states to the registers and the initial h to the first buffer; zero all padding of h.
    TILESMITH_DEVICE void load_states() {
#pragma unroll
        for (int buffer = 0; buffer < 2; ++buffer)
            for (int i = static_cast<int>(thread_index()); i < hidden_bytes / chunk; i += threads)
                store_shared_128(shared + buffer * buffer_bytes + i * chunk, uint4{0, 0, 0, 0});
        if constexpr (sequences.resets)
            for (int i = static_cast<int>(thread_index()); i < initial_bytes / chunk; i += threads)
                store_shared_128(shared + initial_at + i * chunk, uint4{0, 0, 0, 0});
        if constexpr (Input::padded)
            for (int i = static_cast<int>(thread_index()); i < tiling.num_stages * stage_bytes / chunk; i += threads)
                store_shared_128(shared + ring_at + i * chunk, uint4{0, 0, 0, 0});
        if constexpr (sequences.lengths)
            if (thread_index() < 2) store_shared_128(shared + thread_index() * buffer_bytes + zeros_at, uint4{0, 0, 0, 0});
        sync_block();
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                float value = 0.0f;
                if (in.initial != nullptr && own.real(unit_group, column_tile, column))
                    value = to_real<Type>(load_element(in.initial + own.state_index(s, unit_group, column_tile, column)));
                state[unit_group][column_tile][column][s] = value;
                initial[unit_group][column_tile][column][s] = value;
                if (s == 0 && part == 0) {
                    const SharedAddress at = result_at(0, own.row(column_tile, column), own.unit(unit_group));
                    store_shared_element<Type>(at, value);
                    if constexpr (sequences.resets) store_shared_element<Type>(at + initial_at, value);
                }
            }
        });
    }

    /// Before a step, to those rows that begin anew at it: their states are the initial ones again. Selected without a branch,
    /// for that would part what the compiler interleaves.
    TILESMITH_DEVICE void begin_anew() {
        if constexpr (sequences.resets)
            Elements::for_each([&](int unit_group, int column_tile, int column) {
                const bool begins = (restarts >> own.row(column_tile, column) & 1) != 0;
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    float& of_element = state[unit_group][column_tile][column][s];
                    of_element = begins ? initial[unit_group][column_tile][column][s] : of_element;
                }
            });
    }

    /// Before step t: where sequences end write their last states, and where they have ended a step before write zeros from now
    /// on, first for that step. What their rows go on computing reaches no other row.
    TILESMITH_DEVICE void end_sequences(int t) {
        const int end = tile.end_of_lane(in, first_row, lane);
        const unsigned ended = ballot(end == t), before = ballot(end == t - 1);
        if (part == 0) store_last<Type>(in.last, own, state, ended);
        writer.redirect(before, shared + zeros_at);
        next_end = ended != 0 ? t + 1 : tile.least_end(in, first_row, lane, t + 1);
    }

    /// Before step t, at which there is something to be done that others need not ask for. Returns the next such step.
    TILESMITH_DEVICE int stop(int t) {
        int next = tile.steps;
        if constexpr (sequences.lengths) {
            if (t == next_end) end_sequences(t);
            next = minimum(next, next_end);
        }
        if constexpr (sequences.resets) {
            if (t % anew.count == 0) {
                copy_flags_ahead(t);
                anew.look_up(flags, t, tile.steps, lane);
                find_restarts(t, t % 2);
            }
            next = minimum(next, (t | anew.count - 1) + 1);
        }
        return next;
    }

    /// Of the tile's resets the part after this one is wanted 96 steps on, and nobody reads the part before any more.
    TILESMITH_DEVICE void copy_flags_ahead(int t) {
        if (t % Flags::part == anew.count) flags.begin_copy(in, first_row, t / Flags::part + 1);
    }

    /// Of step t, which reads a buffer. Rows that begin anew take their h from where the initial one lies; what is written out is
    /// untouched. Before the barrier: nothing is between that and the load of h.
    TILESMITH_DEVICE void find_restarts(int t, int buffer) {
        if constexpr (sequences.resets) {
            restarts = anew.at(t);
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                const bool begins = (restarts >> Matrix::row_read(lane, column_tile) & 1) != 0;
                reads[column_tile] = places(begins ? initial_at - buffer * buffer_bytes : 0);
            }
        }
    }

    TILESMITH_DEVICE Places places(int from) const { return Places(shared + from, part * k_tiles * 4, lane); }

    /// The products of W and x of one step, where the kernel makes them.
    struct InputSums {
        typename Input::Sums sums;
    };

    /// The product of R and h in a buffer, or, of rows that begin anew, the initial one; of gates that have both, it begins
    /// with that of W and x.
    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, int buffer, const InputSums& inputs) const {
        const auto start = [&](int tile, int column_tile, int i) {
            return Rows::of_row(tile, i / 2, [&](int gate, int unit_group) {
                if constexpr (multiplies_input)
                    if (has(Cell::input, gate)) return Input::Rows::product(inputs.sums, gate, unit_group, column_tile, i % 2);
                return bias[gate][unit_group];
            });
        };
        if constexpr (sequences.resets) {
            weights.product(
                sums,
                [&](int k_tile, uint4(&b)[column_tiles]) {
#pragma unroll
                    for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                        b[column_tile] = load_shared_128(reads[column_tile].at(k_tile, column_tile) + buffer * buffer_bytes);
                },
                start);
        } else {
            weights.multiply(sums, shared + buffer * buffer_bytes, part * k_tiles * 4, lane, start);
        }
    }

    // ---- one step ----

    /// Calls function(offset, sum) for every partial sum, of four elements, and for where it lies among a warp's. Those of
    /// W and x that a product of R begins with are in that.
    template <class Function>
    TILESMITH_DEVICE static void for_each_partial(typename Matrix::Sums& sums, InputSums& inputs, Function function) {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                function((tile * column_tiles + column_tile) * 32 * chunk, sums[tile][column_tile]);
        if constexpr (Input::apart_tiles > 0) {
#pragma unroll
            for (int tile = 0; tile < Input::tiles; ++tile)
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                    if (has(Input::apart, tile))
                        function(((tiles + rank_among(Input::apart, tile)) * column_tiles + column_tile) * 32 * chunk,
                                 inputs.sums[tile][column_tile]);
        }
    }

    /// Where K is split: add the other warps' partial sums to those of part 0, in a fixed order.
    /// Returns true in the warp that goes on with the sums.
    TILESMITH_DEVICE bool combine(typename Matrix::Sums& sums, InputSums& inputs) const {
        if constexpr (tiling.k_split == 1) return true;
        const SharedAddress mine = shared + partial_at + (unit_warp * partial_tiles * column_tiles * 32 + lane) * chunk;
        if (part > 0)
            for_each_partial(sums, inputs, [&](int offset, const float(&s)[4]) {
                store_shared_float4(mine + (part - 1) * part_bytes + offset, float4{s[0], s[1], s[2], s[3]});
            });
        sync_block();
        if (part > 0) return false;
#pragma unroll
        for (int other = 0; other < tiling.k_split - 1; ++other)
            for_each_partial(sums, inputs, [&](int offset, float(&sum)[4]) {
                const float4 s = load_shared_float4(mine + other * part_bytes + offset);
                sum[0] += s.x, sum[1] += s.y, sum[2] += s.z, sum[3] += s.w;
            });
        return true;
    }

    /// The sums of one element's gates: recurrent product, input and bias, of what each gate has.
    TILESMITH_DEVICE void gather_gates(float (&gate)[gates], const typename Matrix::Sums& sums,
                                       const typename Ring::Word (&wx)[unit_groups][column_tiles][Ring::words], const InputSums& inputs,
                                       int unit_group, int column_tile, int column) const {
#pragma unroll
        for (int q = 0; q < gates; ++q) {
            float sum = has(Cell::recurrent, q) ? Rows::product(sums, q, unit_group, column_tile, column) : bias[q][unit_group];
            if constexpr (multiplies_input) {
                if (has(Cell::input & ~Cell::recurrent, q))
                    sum = Input::Rows::product(inputs.sums, q, unit_group, column_tile, column);
            } else if (has(Cell::input, q)) {
                sum += Ring::value(wx[unit_group][column_tile], rank_among(Cell::input, q), column);
            }
            gate[q] = sum;
        }
    }

    TILESMITH_DEVICE void run() {
        tile.prepare(in, first_row, lane, first_row);
        const int steps = tile.steps;
        load_weights();
        load_biases();
        load_states();
        prepare_transfers();
        for (int half = 0; half < 2; ++half) flags.begin_copy(in, first_row, half);
        for (int stage = 0; stage < tiling.num_stages - 1; ++stage) {
            if (stage < steps) begin_copy(stage * stage_bytes);
            cp_async_commit();
        }
        cp_async_wait<tiling.num_stages - 2>();
        sync_block();

        const SharedAddress read_inputs = shared + ring_at + (multiplies_input ? 0 : unit_warp * units * element);
        int stage_offset = 0;  // of the stage that this step reads
        int refill_offset = (tiling.num_stages - 1) * stage_bytes;
        InputSums inputs, next_inputs;  // of this step and the next

        // Ask for what is read num_stages - 1 reads later, into the stage that was read last, and move on.
        const auto move_ring = [&](int t) {
            if (t + tiling.num_stages - 1 < steps) begin_copy(refill_offset);
            cp_async_commit();
            refill_offset = stage_offset;
            stage_offset = stage_offset == (tiling.num_stages - 1) * stage_bytes ? 0 : stage_offset + stage_bytes;
        };
        if constexpr (multiplies_input) {
            if (steps > 0) input.multiply(inputs.sums, read_inputs, part, lane, bias);
            move_ring(0);
            cp_async_wait<tiling.num_stages - 2>();
            sync_block();
        }

        auto step = [&](int t, int buffer) {
            TILESMITH_STAMPED(if (t > 0) stamps.step(Phase::meeting);)
            typename Matrix::Sums sums;
            multiply(sums, buffer, inputs);
            TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
            begin_anew();
            find_restarts(t + 1, buffer ^ 1);  // if that is no stop, which would look them up
            typename Ring::Word wx[unit_groups][column_tiles][Ring::words];
            if (!multiplies_input && part == 0) Ring::load(wx, read_inputs + stage_offset, lane);
            // The results of the step before lie in the buffer that this step reads; nobody waits for their writing.
            if (t > 0 || buffer > 0) write_out(buffer);
            // Behind the last step there is no x: what was read before is multiplied again, and nobody takes the sums.
            const SharedAddress stage = read_inputs + (t + 1 < steps ? stage_offset : refill_offset);
            move_ring(t + multiplies_input);
            TILESMITH_STAMPED(stamps.mark(Phase::transfers);)
            if constexpr (multiplies_input && tiling.overlap_input != 0) {
                input.multiply(next_inputs.sums, stage, part, lane, bias);
                TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
            }

            if (combine(sums, inputs)) {
                TILESMITH_STAMPED(if (tiling.k_split > 1) stamps.mark(Phase::sums);)
                float results[unit_groups][column_tiles][columns][arrays];
                Elements::for_each([&](int unit_group, int column_tile, int column) {
                    float gate[gates];
                    gather_gates(gate, sums, wx, inputs, unit_group, column_tile, column);
                    step_element<Cell, Type, save>(gate, state[unit_group][column_tile][column],
                                                   results[unit_group][column_tile][column], own, unit_group);
                });
                stores.store(
                    own, (buffer ^ 1) * buffer_bytes,
                    [&](int array, int unit_group, int column_tile, int column) {
                        return results[unit_group][column_tile][column][array];
                    },
                    [&](int array, int row, int unit) { return result_at(array, row, unit); });
                TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
            }
            if constexpr (multiplies_input) {
                if constexpr (tiling.overlap_input != 0)
                    inputs = next_inputs;
                else
                    input.multiply(inputs.sums, stage, part, lane, bias);
                TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
            }
            cp_async_wait<tiling.num_stages - 2>();
            sync_block();
        };
        TILESMITH_STAMPED(stamps.start(in.stamps, warp == 0);)

        int t = 0;
        if constexpr (sequences.resets || sequences.lengths) {
            // What an ordinary step asks is whether the loop goes on: the stops are where it ends.
            while (t < steps) {
                const int next = stop(t);
                if (t % 2 != 0 || t + 1 == next) {
                    step(t, t % 2);
                    ++t;
                }
                for (; t + 1 < next; t += 2) {
                    step(t, 0);
                    step(t + 1, 1);
                }
            }
            if (sequences.lengths && t == next_end) end_sequences(t);
        } else {
            for (; t + 1 < steps; t += 2) {
                step(t, 0);
                step(t + 1, 1);
            }
            if (t < steps) step(t, 0);
        }
        TILESMITH_STAMPED(stamps.step(Phase::meeting); stamps.finish();)
        write_out(steps % 2);
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - steps, [](int) { return shape.heads * D; });

        if (!sequences.lengths && part == 0) store_last<Type>(in.last, own, state);
    }
};

}  // namespace tilesmith
