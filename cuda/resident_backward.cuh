// The resident schedule, backward: one block holds the recurrent matrix of one head and runs a tile of the batch from
// the last step to the first.
//
// The pointwise step turns the gradients of the new states into those of the gates, in the lane that owns the unit.
// They travel through shared memory, and the transposed R turns them on the tensor cores into the gradient of the
// previous h, which ends in the lane that owns that unit: one barrier a step, as forward. What the step makes of the gates
// alone does not wait for that product: it is hoisted, and runs beside the one of the step before; so do the gates' sums,
// where they are recomputed. The gradients of R and b follow from what is written here (parameter_gradients.cuh), but for those
// of the gates without an input, which are summed on the way (partial_gradients.cuh).
//
// A warp owns 16 units: lane (g, j) has units g and g + 8, sequences 2j and 2j + 1 (or j, with 4 sequences).
#pragma once

#include "recomputed_gates.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "lane_stores.cuh"
#include "array_writer.cuh"
#include "recurrence.cuh"
#include "partial_gradients.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// The tile variables; kernelgen/schedules/resident/backward.py states their constraints.
struct ResidentBackwardTiling {
    int batch_tile;                          // sequences per block: 4, or a multiple of 8
    int k_tiles_in_registers;                // of 32 rows of R each, those that stay in registers
    int accumulators;                        // independent ones
    int num_stages;                          // of the ring that holds saved values and gradients
    int recompute_k_tiles_in_registers = 0;  // of 32 columns of R each, those that stay in registers to recompute gates
};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, ResidentBackwardTiling tiling, int state_gradients, Gates source, Stores how>
struct ResidentBackward {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr unsigned stored = Cell::recurrent | Cell::input;  // gates whose gradients go to shared memory
    static constexpr unsigned staged = Cell::input & ~Cell::recurrent;  // not to be exchanged, but to be written out

    static constexpr int units = 16;
    static constexpr int warps = ceil_div(D, units);
    static constexpr int threads = 32 * warps;
    static constexpr int padded_units = warps * units;
    static constexpr int k_tiles = ceil_div(recurrent_gates * padded_units, 32);  // k = gate * padded_units + unit

    static constexpr int rows = tiling.batch_tile;
    using Elements = LaneElements<shape, units, rows>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;

    static_assert(state_gradients == 1 || state_gradients == states, "gradients of h alone, or of every state");
    static_assert(threads <= 1024, "a block has at most 1024 threads");

    // ---- what a step reads: arrays of gates' sums or of inputs, of states before the step, of gradients ----
    static constexpr bool recompute = source == Gates::recomputed;
    using Sums = RecomputedGates<Cell, Type, shape, rows, tiling.recompute_k_tiles_in_registers>;
    static constexpr unsigned gate_arrays = recompute ? Cell::backward_gates & Cell::input : Cell::saved;
    static constexpr unsigned state_arrays =
        Cell::backward_states | ((recompute && Sums::products != 0) || (Cell::recurrent & ~Cell::input) != 0 ? 1u : 0u);
    static constexpr int read_gates = count_bits(gate_arrays);
    static constexpr int read_states = count_bits(state_arrays);
    static constexpr int arrays = read_gates + read_states + state_gradients;
    static constexpr int row_units = recompute ? maximum(padded_units, Sums::padded_k) : padded_units;

    // ---- shared memory ----
    static constexpr int row_bytes = (row_units / 8 | 1) * chunk_bytes;  // odd: no bank conflicts
    using Inputless = PartialGradients<Cell, Type, shape, rows, row_bytes>;
    using Layout = MovingLayout<rows>;
    static constexpr int exchange_bytes = Layout::bytes(32 * k_tiles);
    static constexpr int buffer_bytes = exchange_bytes + count_bits(staged) * rows * row_bytes;
    using Ring = InputRing<Type, shape, arrays, rows, threads, row_bytes>;
    static constexpr int ring_at = 2 * buffer_bytes;
    using Matrix = StationaryMatrix<Type, 1, k_tiles, tiling.k_tiles_in_registers, rows, tiling.accumulators>;
    static constexpr int scratch_bytes = 32 * chunk_bytes;  // of a warp, in the ring before and after its use
    static constexpr int held = Inputless::products != 0 ? 1 : 0;  // stages that are read once more in the step after
    static_assert(tiling.num_stages >= 2 + held, "the ring needs a stage to read and a stage to fill, and those held");
    static constexpr int ring_bytes = maximum(tiling.num_stages * Ring::stage_bytes, warps * scratch_bytes);
    static constexpr int weights_at = ring_at + ring_bytes;
    static constexpr int sums_at = weights_at + warps * Matrix::shared_bytes;
    static constexpr int shared_bytes = sums_at + (recompute ? warps * Sums::shared_bytes : 0);

    // ---- the thread's place ----
    const BackwardArguments& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = static_cast<int>(thread_index()) / 32;
    const int head = static_cast<int>(block_x());
    const int first_row = static_cast<int>(block_y()) * rows;
    const Elements own{.batch = in.batch, .warp = warp, .head = head, .first_row = first_row, .g = g, .j = j};
    const SharedAddress shared = shared_memory();

    Matrix weights;
    Sums sums;  // unused where the gates were saved
    Inputless inputless;
    Ring ring;
    LaneStores<Type, shape, units, rows, count_bits(stored), how> stores;
    ArrayWriter<shape, rows, threads, maximum(1, input_gates)> writer;
    float bias[gates][unit_groups];                                      // of gates that are recomputed, or a bias alone
    float carried[unit_groups][column_tiles][columns][states];           // gradients that later steps send back
    float outside[unit_groups][column_tiles][columns][state_gradients];  // gradients from outside, of the next step to run
    typename Cell::Ready ready[unit_groups][column_tiles][columns];      // what the next step computes before it has them

    // ---- before the first step ----

    /// This lane's rows of R transposed: row p is a previous unit, k a gate of a unit. R is read along its rows, 8
    /// previous units a lane, and turned in the warp's part of the ring, which holds nothing yet.
    TILESMITH_DEVICE void load_weights() {
        const SharedAddress scratch = shared + ring_at + warp * scratch_bytes;
        weights.load(shared + weights_at + warp * Matrix::shared_bytes, lane, [&](int, int k_tile, int upper) {
            const int k = 32 * k_tile + lane;
            const int gate = k / padded_units, u = k % padded_units;
            const int p = warp * units + 8 * upper;
            const bool valid = gate < recurrent_gates && u < D && p < D;
            const long long row = (static_cast<long long>(valid ? gate : 0) * shape.heads + head) * D + (valid ? u : 0);
            const uint4 along = load_row_of_8<vector_width(D)>(in.r + row * D + (valid ? p : 0), valid ? D - p : 0);
            sync_warp();  // the turn before is read
            store_shared_128(scratch + lane * chunk_bytes, along);
            sync_warp();
            unsigned words[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const SharedAddress from = scratch + (8 * j + 2 * i) * chunk_bytes + 2 * g;
                words[i] = load_shared_16(from) | static_cast<unsigned>(load_shared_16(from + chunk_bytes)) << 16;
            }
            return uint4{words[0], words[1], words[2], words[3]};
        });
    }

    /// Zero what is read but never written: the padding of K, and of the ring that of a padded head and, where there
    /// are fewer steps than stages, the rest.
    TILESMITH_DEVICE void clear_padding() const {
        const int thread = static_cast<int>(thread_index());
        if constexpr (recurrent_gates * padded_units % 32 != 0)
            for (int i = thread; i < 2 * 2 * rows; i += threads) {
                const int k_chunk = recurrent_gates * padded_units / 8 + i % 2;
                const int buffer = i / 2 % 2;
                store_shared_128(shared + buffer * buffer_bytes + Layout::offset(k_chunk, i / 4), uint4{0, 0, 0, 0});
            }
        if (row_units != D || in.seq < tiling.num_stages)
            for (int i = thread; i < tiling.num_stages * Ring::stage_bytes / chunk_bytes; i += threads)
                store_shared_128(shared + ring_at + i * chunk_bytes, uint4{0, 0, 0, 0});
    }

    TILESMITH_DEVICE void load_last() {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                unsigned short word = 0;
                if (in.d_last != nullptr && own.real(unit_group, column_tile, column))
                    word = load_global_16(in.d_last + own.state_index(s, unit_group, column_tile, column));
                carried[unit_group][column_tile][column][s] = to_float<Type>(word);
            }
        });
    }

    // ---- saved values and gradients in, the gates' gradients out ----

    TILESMITH_DEVICE static bool is_state(int array) { return array >= read_gates && array < read_gates + read_states; }

    TILESMITH_DEVICE void prepare_transfers() {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        ring.prepare(shared + ring_at, [&](int array, int row, int unit) {
            const long long sequence = minimum(first_row + row, in.batch - 1);  // past the batch: any row will do
            const long long step = sequence * in.seq + in.seq - 1;
            const long long at = (step * shape.heads + head) * D + unit;
            if (array < read_gates) {
                const long long input = rank_among(Cell::input, nth_bit(gate_arrays, array));
                if constexpr (recompute) return in.wx + ((step * input_gates + input) * shape.heads + head) * D + unit;
                return in.gates + array * array_elements + at;
            }
            if (is_state(array)) {  // the states before the step
                const int s = nth_bit(state_arrays, array - read_gates);
                const unsigned short* base = in.states + s * array_elements;
                if (s > 0 && in.others != nullptr) base = in.others + (s - 1) * array_elements;
                return base + at - shape.heads * D;
            }
            return in.d_states + (array - read_gates - read_states) * array_elements + at;
        });
        const auto target = [&](int input, int row, int unit) {
            const long long step = static_cast<long long>(first_row + row) * in.seq + in.seq - 1;
            return in.d_wx + ((step * input_gates + input) * shape.heads + head) * D + unit;
        };
        stores.prepare(own, lane, [&](int i, int row, int unit) { return gradient_at(nth_bit(stored, i), row, unit); });
        writer.prepare(input_gates == 0 ? 0 : in.batch - first_row, D, target, [&](int input, int row, int unit) {
            return gradient_at(input_gates == 0 ? 0 : nth_bit(Cell::input, input), row, unit);
        });
    }

    /// Begin copying what step t reads, and move on to step t - 1. Before step 0 lie the initial states.
    TILESMITH_DEVICE void begin_copy(int stage_offset, int t) {
        if (t > 0) {
            ring.begin_copy(stage_offset, [](int array) {
                return -(recompute && array < read_gates ? input_gates * shape.heads * D : shape.heads * D);
            });
            return;
        }
#pragma unroll
        for (int i = 0; i < Ring::copies; ++i) {
            if (!Ring::copies_too(i)) continue;
            int array, row, unit;
            Ring::locate(i, array, row, unit);
            const SharedAddress to = ring.to[i] + stage_offset;
            if (!is_state(array)) {
                Ring::copy(to, ring.from[i]);
            } else if (in.initial != nullptr) {
                const int s = nth_bit(state_arrays, array - read_gates);
                const int sequence = minimum(first_row + row, in.batch - 1);
                Ring::copy(to, in.initial + ((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + unit);
            } else {
#pragma unroll
                for (int word = 0; word < Ring::width; ++word) store_shared_16(to + 2 * word, 0);
            }
        }
    }

    TILESMITH_DEVICE void write_out(int buffer) {
        writer.write(buffer * buffer_bytes, [](int) { return -input_gates * shape.heads * D; });
    }

    // ---- one step ----

    /// Where a gate's gradient goes in the first buffer: to the exchange, or where it is written out from only.
    TILESMITH_DEVICE SharedAddress gradient_at(int gate, int row, int unit) const {
        const int k_chunk = (rank_among(Cell::recurrent, gate) * padded_units + unit) / 8;
        const int apart = exchange_bytes + (rank_among(staged, gate) * rows + row) * row_bytes + 2 * unit;
        return shared + (has(Cell::recurrent, gate) ? Layout::offset(k_chunk, row) + 2 * (unit % 8) : apart);
    }

    /// Where h before the step lies in a stage of the ring, if it is read: state 0 comes first.
    static constexpr int hidden_at = read_gates * rows * row_bytes;
    /// The gates of which a part is neither a saved sum nor an input.
    static constexpr unsigned recomputed_gates = recompute ? Cell::backward_gates : Cell::backward_gates & ~Cell::saved;

    /// The hoisted part of a pointwise step, from a stage of the ring: what waits for no gradient of a later step.
    TILESMITH_DEVICE void prepare(int stage_offset) {
        const SharedAddress stage = shared + ring_at + stage_offset;
        typename Sums::Sums sum;
        if constexpr (recompute) sums.template multiply<row_bytes>(sum, stage + hidden_at, lane, bias);
        unsigned inputs[unit_groups][column_tiles][Ring::words];
        Ring::load(inputs, stage + warp * unit_groups * chunk_bytes, lane);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            const unsigned(&words)[Ring::words] = inputs[unit_group][column_tile];
            float gate[gates], previous[states];
#pragma unroll
            for (int q = 0; q < gates; ++q) {
                const bool read = has(gate_arrays, q);
                gate[q] = read ? Ring::value(words, rank_among(gate_arrays, q), column) : 0.0f;
                if (has(recomputed_gates, q)) {
                    const float recomputed =
                        recompute ? sums.value(sum, q, unit_group, column_tile, column, bias) : bias[q][unit_group];
                    gate[q] = read ? gate[q] + recomputed : recomputed;
                }
            }
#pragma unroll
            for (int s = 0; s < states; ++s) {
                const int array = read_gates + rank_among(state_arrays, s);
                previous[s] = has(Cell::backward_states, s) ? Ring::value(words, array, column) : 0.0f;
            }
            Cell::prepare(gate, previous, ready[unit_group][column_tile][column]);
#pragma unroll
            for (int s = 0; s < state_gradients; ++s)
                outside[unit_group][column_tile][column][s] = Ring::value(words, read_gates + read_states + s, column);
        });
    }

    /// The critical path: stores the gates' gradients, carries the states'.
    TILESMITH_DEVICE void finish(int buffer, bool last) {
        float d_gates[unit_groups][column_tiles][columns][gates];
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            float(&carry)[states] = carried[unit_group][column_tile][column];
            float(&d_gate)[gates] = d_gates[unit_group][column_tile][column];
            float d_next[states];
#pragma unroll
            for (int s = 0; s < states; ++s) {
                d_next[s] = s == 0 && !last ? Cell::recurrent_gradient(carry[0]) : carry[s];
                if (s < state_gradients) d_next[s] += outside[unit_group][column_tile][column][s];
            }
            Cell::backward(ready[unit_group][column_tile][column], d_next, d_gate, carry);
        });
        const auto value = [&](int gate, int unit_group, int column_tile, int column) {
            if (D % units != 0 && own.unit(unit_group) >= D) return 0.0f;  // padding must stay finite: zeros multiply it
            return d_gates[unit_group][column_tile][column][gate];
        };
        stores.store(
            own, buffer * buffer_bytes,
            [&](int i, int unit_group, int column_tile, int column) {
                return value(nth_bit(stored, i), unit_group, column_tile, column);
            },
            [&](int i, int row, int unit) { return gradient_at(nth_bit(stored, i), row, unit); });
        inputless.take(own, value);
    }

    /// The product: the gates' gradients in a buffer become that of h before the step.
    TILESMITH_DEVICE void multiply(int buffer) {
        if constexpr (!Cell::recurrent_cut) {
            typename Matrix::Sums d_hidden;
            weights.multiply(d_hidden, shared + buffer * buffer_bytes, 0, lane, [&](int, int column_tile, int i) {
                return i % 2 < columns ? carried[i / 2][column_tile][i % 2 < columns ? i % 2 : 0][0] : 0.0f;
            });
            Elements::for_each([&](int unit_group, int column_tile, int column) {
                carried[unit_group][column_tile][column][0] = d_hidden[0][column_tile][2 * unit_group + column];
            });
        }
    }

    // ---- all steps ----

    /// Fill the ring; the inputs of the first step have arrived.
    TILESMITH_DEVICE void begin_copies() {
        prepare_transfers();
        for (int stage = 0; stage < tiling.num_stages - held; ++stage) {
            if (stage < in.seq) begin_copy(stage * Ring::stage_bytes, in.seq - 1 - stage);
            cp_async_commit();
        }
        cp_async_wait<tiling.num_stages - held - 1>();
    }

    /// In the n-th step, copy what a later one reads into the stage that nobody reads any more.
    TILESMITH_DEVICE void refill(int n, int stage_offset) {
        const int t = in.seq - 1 - n - (tiling.num_stages - held);
        if (t >= 0) begin_copy(stage_offset, t);
        cp_async_commit();
    }

    /// Every step, with the buffer of its number as a constant.
    template <class Step>
    TILESMITH_DEVICE void for_each_step(Step step) const {
        int n = 0;
        for (; n + 1 < in.seq; n += 2) {
            step(n, 0);
            step(n + 1, 1);
        }
        if (n < in.seq) step(n, 0);
    }

    TILESMITH_DEVICE void run() {
        load_weights();
        if constexpr (recompute) sums.load(in, shared + sums_at + warp * Sums::shared_bytes, lane, own);
        load_bias<Type, Cell>(bias, in.b, recomputed_gates, own);
        inputless.clear();
        load_last();
        sync_block();
        clear_padding();
        sync_block();
        begin_copies();
        sync_block();
        prepare(0);
        constexpr int last_stage = (tiling.num_stages - 1) * Ring::stage_bytes;
        int stage_offset = 0;
        for_each_step([&](int n, int buffer) {
            finish(buffer, n == 0);
            cp_async_wait<tiling.num_stages - 2 - held>();
            sync_block();  // the gates' gradients are there, and the inputs of the step after this one
            multiply(buffer);
            inputless.multiply(shared + ring_at + stage_offset + hidden_at, lane);
            const int next = stage_offset == last_stage ? 0 : stage_offset + Ring::stage_bytes;
            prepare(next);  // beside the product; after the last step, of what lies there
            write_out(buffer);
            refill(n, held == 0 ? stage_offset : stage_offset == 0 ? last_stage : stage_offset - Ring::stage_bytes);
            stage_offset = next;
        });
        if constexpr (Inputless::members != 0) {
            sync_block();  // the ring is read
            inputless.write_out(in, own, static_cast<int>(block_y()), shared + ring_at + warp * scratch_bytes, lane);
        }
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = 0; s < states; ++s)
                store_global_16(in.d_initial + own.state_index(s, unit_group, column_tile, column),
                                to_16<Type>(carried[unit_group][column_tile][column][s]));
        });
    }
};

}  // namespace tilesmith
