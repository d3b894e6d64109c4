// What the backward kernels share: the units that a block owns, for a tile of the batch, from the last step to the first.
//
// The pointwise step turns the gradients of the new states into those of the gates, in the lane that owns the unit, and
// leaves them in shared memory, for the product with the transposed R and to be written out. What it computes again from
// the gates waits for no gradient (prepare), and neither do the gates' sums where they were not saved; the rest is short
// (finish). What a step reads comes through a ring (backward_transfers.cuh).
//
// A warp that owns units owns 16: lane (g, j) has units g and g + 8, sequences 2j and 2j + 1 (or j, with 4 sequences).
#pragma once

#include "backward_transfers.cuh"

namespace tilesmith {

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, BackwardBlock block, int state_gradients, Gates source, Stores how,
          Sequences sequences = Sequences{}>
struct BackwardStep : BackwardTransfers<Cell, Type, shape, block, state_gradients, source, how, sequences> {
    using Base = BackwardTransfers<Cell, Type, shape, block, state_gradients, source, how, sequences>;
    using typename Base::Elements, typename Base::Sums, typename Base::Inputless, typename Base::Ring, typename Base::Flags;
    using Base::rows, Base::unit_groups, Base::row_groups, Base::D, Base::states, Base::gates, Base::recurrent_gates,
        Base::padded_units, Base::units, Base::element, Base::stored, Base::column_tiles, Base::columns, Base::recompute, Base::gate_arrays,
        Base::multiplies_hidden, Base::state_arrays, Base::recomputed_gates, Base::read_gates, Base::read_states, Base::row_bytes,
        Base::buffer_bytes, Base::ring_at, Base::scratch_bytes, Base::held, Base::hidden_at, Base::first_unit, Base::in,
        Base::lane, Base::warp, Base::head, Base::first_row, Base::own, Base::shared, Base::tile, Base::flags, Base::ahead,
        Base::stores, Base::prepare_transfers, Base::begin_copy, Base::gradient_at;

    // ---- registers that live through the sequence ----

    ResetRows<sequences, -1> anew;  // of the steps that are prepared
    // Steps are counted from the tile's last: of each row the one that is run first, and the first before all ends.
    int first_run[column_tiles][columns];
    int all_run = 0;

    Sums sums;  // unused where the gates were saved
    Inputless inputless;
    float bias[gates][unit_groups];  // of the gates that are computed again or are nothing but a bias
    float carried[unit_groups][column_tiles][columns][states];  // gradients that later steps send back
    float outside[unit_groups][column_tiles][columns][state_gradients];  // gradients from outside, of the next step to run
    typename Cell::Ready ready[unit_groups][column_tiles][columns];      // what the next step computes before it has them
    static constexpr int elements = unit_groups * column_tiles * columns;
    static constexpr int word_elements = 4 / element;
    unsigned initial[states][ceil_div(elements, word_elements)];  // the initial states, so many a word, where resets ask for them
    float sent[unit_groups][column_tiles][columns][states];     // and what of their gradients resets have sent
    unsigned begins = 0;    // the rows that begin anew at the step that is prepared next,
    unsigned restarts = 0;  // and at the step after the one that is run next

    // ---- before the first step ----

    /// By all warps of a block, those that own nothing too.
    TILESMITH_DEVICE void find_ends() {
        tile.template prepare<rows * row_groups>(in, first_row, lane, static_cast<int>(block_y()) * rows * row_groups);
        if constexpr (sequences.lengths) {
            all_run = tile.steps + 1 - tile.least_end(in, first_row, lane, 0);
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int column = 0; column < columns; ++column)
                    first_run[column_tile][column] = tile.steps - tile.end_of(own.row(column_tile, column));
        }
    }

    /// This lane's rows of R transposed, of gates of this block's units, turned in the ring, which holds nothing yet.
    /// first(tile): the first previous unit of a tile.
    template <class Matrix, class First>
    TILESMITH_DEVICE void load_weights(Matrix& weights, SharedAddress at, First first) const {
        load_transposed<shape, recurrent_gates>(weights, in.r, head, at, shared + ring_at + warp * scratch_bytes, lane, first,
                                                [](int k, int& gate, int& unit) {
                                                    gate = k / padded_units;
                                                    unit = first_unit() + k % padded_units;
                                                });
    }

    /// The number of an element among the lane's.
    TILESMITH_DEVICE static constexpr int number(int unit_group, int column_tile, int column) {
        return (unit_group * column_tiles + column_tile) * columns + column;
    }

    TILESMITH_DEVICE void load_last() {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                Element<Type> word = 0;
                if (in.d_last != nullptr && own.real(unit_group, column_tile, column))
                    word = load_element(in.d_last + own.state_index(s, unit_group, column_tile, column));
                carried[unit_group][column_tile][column][s] = to_real<Type>(word);
                sent[unit_group][column_tile][column][s] = 0.0f;
            }
        });
    }

    /// Late: R is loaded with every register there is.
    TILESMITH_DEVICE void load_initial() {
        if constexpr (sequences.resets)
            Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    Element<Type> value = 0;
                    if (in.initial != nullptr && own.real(unit_group, column_tile, column))
                        value = load_element(in.initial + own.state_index(s, unit_group, column_tile, column));
                    const int at = number(unit_group, column_tile, column);
                    unsigned& word = initial[s][at / word_elements];
                    if constexpr (element == 4)
                        word = __float_as_uint(value);
                    else
                        word = at % 2 == 0 ? value : word | static_cast<unsigned>(value) << 16;
                }
            });
    }

    // ---- one step ----

    /// The first half of a pointwise step, from a stage of the ring: what waits for no gradient of a later step.
    TILESMITH_DEVICE void prepare(int stage_offset) {
        const SharedAddress stage = shared + ring_at + stage_offset;
        typename Sums::Sums sum;
        if constexpr (recompute) sums.template multiply<row_bytes>(sum, stage + hidden_at, lane, bias);
        typename Ring::Word inputs[unit_groups][column_tiles][Ring::words];
        Ring::load(inputs, stage + warp * units * element, lane);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            const typename Ring::Word(&words)[Ring::words] = inputs[unit_group][column_tile];
            float gate[gates], previous[states];
#pragma unroll
            for (int q = 0; q < gates; ++q) {
                const bool read = has(gate_arrays, q);
                gate[q] = read ? Ring::value(words, rank_among(gate_arrays, q), column) : 0.0f;
                if (has(recomputed_gates, q)) {
                    float recomputed = bias[q][unit_group];
                    if constexpr (recompute) recomputed = sums.value(sum, q, unit_group, column_tile, column, bias);
                    gate[q] = read ? gate[q] + recomputed : recomputed;
                }
            }
#pragma unroll
            for (int s = 0; s < states; ++s) {
                const int array = read_gates + rank_among(state_arrays, s);
                previous[s] = has(Cell::backward_states, s) ? Ring::value(words, array, column) : 0.0f;
                if constexpr (sequences.resets && !multiplies_hidden)
                    if ((begins >> own.row(column_tile, column) & 1) != 0) {
                        const int at = number(unit_group, column_tile, column);
                        const unsigned word = initial[s][at / word_elements];
                        if constexpr (element == 4)
                            previous[s] = __uint_as_float(word);
                        else
                            previous[s] = at % 2 == 0 ? unpack_low<Type>(word) : unpack_high<Type>(word);
                    }
            }
            Cell::prepare(gate, previous, ready[unit_group][column_tile][column]);
#pragma unroll
            for (int s = 0; s < state_gradients; ++s)
                outside[unit_group][column_tile][column][s] = Ring::value(words, read_gates + read_states + s, column);
        });
    }

    using Gradients = float[unit_groups][column_tiles][columns][gates];

    /// The gradients of states before which a sequence begins anew are the initial states'. Selected, for a branch would part
    /// what the compiler interleaves.
    TILESMITH_DEVICE void send_to_initial(int n) {
        if constexpr (sequences.resets) {
            Elements::for_each([&](int unit_group, int column_tile, int column) {
                const bool restarts_here = (restarts >> own.row(column_tile, column) & 1) != 0;
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    float &carry = carried[unit_group][column_tile][column][s], &sum = sent[unit_group][column_tile][column][s];
                    sum = restarts_here ? sum + carry : sum;
                    carry = restarts_here ? 0.0f : carry;
                }
            });
            restarts = begins;
            begins = anew.at(n);
        }
    }

    /// The second half of the n-th step: the gates' gradients; carries the states'. whole: whether it is before all ends. Of rows
    /// that have ended what a step reads may be NaN: their gates' gradients are zero, and the states' stay.
    template <bool whole>
    TILESMITH_DEVICE void differentiate(Gradients& d_gates, int n, Constant<whole>) {
        send_to_initial(n);
        constexpr bool some = sequences.lengths && !whole;
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            float(&carry)[states] = carried[unit_group][column_tile][column];
            const int first = some ? first_run[column_tile][column] : 0;
            const bool ended = some && n < first;
            float d_next[states], later[states];
#pragma unroll
            for (int s = 0; s < states; ++s) {
                later[s] = carry[s];
                d_next[s] = s == 0 && n > first ? Cell::recurrent_gradient(carry[0]) : carry[s];
                if (s < state_gradients) d_next[s] += outside[unit_group][column_tile][column][s];
            }
            Cell::backward(ready[unit_group][column_tile][column], d_next, d_gates[unit_group][column_tile][column], carry);
#pragma unroll
            for (int q = 0; q < gates; ++q) {
                float& d_gate = d_gates[unit_group][column_tile][column][q];
                d_gate = ended ? 0.0f : d_gate;
            }
#pragma unroll
            for (int s = 0; s < states; ++s) carry[s] = ended ? later[s] : carry[s];
        });
    }

    /// One of them, which for padding must stay finite: zeros multiply it.
    TILESMITH_DEVICE float gradient(const Gradients& d_gates, int gate, int unit_group, int column_tile, int column) const {
        if (Elements::padded && own.unit(unit_group) >= D) return 0.0f;
        return d_gates[unit_group][column_tile][column][gate];
    }

    /// Store those that are multiplied or written out, in a buffer, and add up the others.
    TILESMITH_DEVICE void keep(int buffer, const Gradients& d_gates) {
        stores.store(
            own, buffer * buffer_bytes,
            [&](int i, int unit_group, int column_tile, int column) {
                return gradient(d_gates, nth_bit(stored, i), unit_group, column_tile, column);
            },
            [&](int i, int row, int unit) { return gradient_at(nth_bit(stored, i), row, unit - first_unit()); });
        inputless.take(own, [&](int gate, int unit_group, int column_tile, int column) {
            return gradient(d_gates, gate, unit_group, column_tile, column);
        });
    }

    template <bool whole>
    TILESMITH_DEVICE void finish(int buffer, int n, Constant<whole> before_ends) {
        Gradients d_gates;
        differentiate(d_gates, n, before_ends);
        keep(buffer, d_gates);
    }

    // ---- all steps ----

    /// Fill the ring; the inputs of the first step have arrived.
    TILESMITH_DEVICE void begin_copies() {
        ahead.look_up(flags, tile.steps - 1, tile.steps, lane);
        begins = ahead.at(0);
        prepare_transfers();
        for (int stage = 0; stage < block.num_stages - held; ++stage) {
            if (stage < tile.steps) begin_copy(stage * Ring::stage_bytes, tile.steps - 1 - stage, ahead.at(stage));
            cp_async_commit();
        }
        cp_async_wait<block.num_stages - held - 1>();
    }

    /// Before the n-th step, at which there is something to be done that others need not ask for. Returns the next such step.
    /// flagged: whether this warp has to do with resets.
    TILESMITH_DEVICE int stop(int n, bool flagged) {
        int next = tile.steps;
        if constexpr (sequences.resets) {
            if (n % anew.count == 0 && flagged) {
                const int t = tile.steps - 1 - n, copied = t - (block.num_stages - held);
                // The part before this one is wanted 64 steps on or later, and nobody reads the part after it any more.
                if ((copied & Flags::part - 1) / anew.count == 2) flags.begin_copy(in, first_row, copied / Flags::part - 1);
                anew.look_up(flags, t - 1, tile.steps, lane);
                if constexpr (multiplies_hidden) ahead.look_up(flags, copied, tile.steps, lane);
            }
            next = minimum(next, (n | anew.count - 1) + 1);
        }
        if constexpr (sequences.lengths)
            if (n < all_run) next = minimum(next, all_run);
        return next;
    }

    template <class Kernel, bool whole>
    TILESMITH_DEVICE static void run_pairs(Kernel& kernel, int& n, int end, Constant<whole> before_ends) {
        for (; n + 1 < end; n += 2) {
            kernel.run_step(n, 0, before_ends);
            kernel.run_step(n + 1, 1, before_ends);
        }
    }

    /// Every step of a kernel, with the buffer of its number as a constant, and whether it is before all ends. Where sequences have anything
    /// of their own, an ordinary step asks whether the loop goes on, and no more: stops are where it ends.
    template <class Kernel>
    TILESMITH_DEVICE void for_each_step(Kernel& kernel, bool flagged = true) {
        int n = 0;
        if constexpr (sequences.resets || sequences.lengths) {
            while (n < tile.steps) {
                const int next = stop(n, flagged);
                if (n % 2 != 0 || n + 1 == next) {
                    kernel.run_step(n, n % 2, Constant<false>{});
                    ++n;
                }
                if (!sequences.lengths || n >= all_run)
                    run_pairs(kernel, n, next, Constant<true>{});
                else
                    run_pairs(kernel, n, next, Constant<false>{});
            }
        } else {
            run_pairs(kernel, n, tile.steps, Constant<true>{});
            if (tile.steps % 2 != 0) kernel.run_step(tile.steps - 1, 0, Constant<true>{});  // n: in no register until here
        }
    }

    /// Write the gradients of the initial states.
    TILESMITH_DEVICE void store_initial() const { store_initial(own); }

    /// The same with the lane's place as it is computed anew, which need not lie in registers until then.
    TILESMITH_DEVICE void store_initial(const Elements& own) const {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = 0; s < states; ++s)
            {
                float gradient = carried[unit_group][column_tile][column][s];
                if constexpr (sequences.resets) gradient += sent[unit_group][column_tile][column][s];
                store_element(in.d_initial + own.state_index(s, unit_group, column_tile, column), to_element<Type>(gradient));
            }
        });
    }
};

}  // namespace tilesmith
