// What the backward kernels share: the units that a block owns, for a tile of the batch, from the last step to the first.
//
// The pointwise step turns the gradients of the new states into those of the gates, in the lane that owns the unit, and
// leaves them in shared memory, for the product with the transposed R and to be written out. What it computes again from
// the gates waits for no gradient (prepare), and neither do the gates' sums where they were not saved; the rest is short
// (finish). What a step reads comes through a ring.
//
// A warp that owns units owns 16: lane (g, j) has units g and g + 8, sequences 2j and 2j + 1 (or j, with 4 sequences).
#pragma once

#include "recomputed_gates.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "lane_stores.cuh"
#include "array_writer.cuh"
#include "recurrence.cuh"
#include "partial_gradients.cuh"
#include "sequences.cuh"
#include "transposed_weights.cuh"

namespace tilesmith {

/// Who share a head, and how.
enum class Sharing {
    nobody,   // a block has all of it
    cluster,  // the blocks of a cluster have a part of the units each
    grid      // so have any blocks that follow each other; a warp that owns units keeps all it reads and writes to itself
};

/// A block of a backward kernel.
struct BackwardBlock {
    Sharing sharing;
    int blocks;      // that share a head
    int threads;     // of a block, the first warps of which own units
    int rows;        // sequences of a warp that owns units: 4, or a multiple of 8
    int num_stages;  // stages of the ring that holds saved values and gradients
    int unit_groups = 0;  // of 8 units that a block of a grid owns
    int row_groups = 1;   // warps that own the same units, each for `rows` sequences of its own
    int recompute_k_tiles_in_registers = 0;  // groups of 32 columns of R that stay in registers to compute the gates again
};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, BackwardBlock block, int state_gradients, Gates source, Stores how,
          Sequences sequences = Sequences{}>
struct BackwardStep {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr unsigned inputless_products = Cell::recurrent & ~Cell::input;

    static constexpr bool shared_out = block.sharing != Sharing::nobody;
    static constexpr bool alone = block.sharing == Sharing::grid;  // a warp that owns units
    using Who = typename Either<alone, OneWarp, WholeBlock>::Type;
    static constexpr int blocks = block.blocks;
    /// Gates without an input whose gradients are written out, because no block has all of the h they multiply.
    static constexpr unsigned written_too = shared_out ? inputless_products : 0;
    static constexpr int writes = input_gates + count_bits(written_too);
    static constexpr int threads = block.threads;
    static constexpr int units = alone ? 8 : 16;  // of a warp that owns any
    static constexpr int unit_warps = alone ? block.unit_groups : ceil_div(ceil_div(D, units), blocks);  // of a block, for a row group
    static constexpr int row_groups = block.row_groups;
    static constexpr int padded_units = (alone ? 1 : unit_warps) * units;  // that are stored together
    static constexpr int real_units = shared_out ? padded_units : D;       // of a row in the ring
    static constexpr int k_tiles = ceil_div(recurrent_gates * padded_units, 32);  // k = gate * padded_units + unit

    // Gates whose gradients go to shared memory, of those the ones that the block multiplies from there, and the others.
    static constexpr unsigned stored = (alone ? written_too : Cell::recurrent) | Cell::input;
    static constexpr unsigned multiplied = alone ? 0 : Cell::recurrent;
    static constexpr unsigned staged = stored & ~multiplied;

    static constexpr int rows = block.rows;
    using Elements = LaneElements<shape, units, rows, blocks * unit_warps * units, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;

    static_assert(state_gradients == 1 || state_gradients == states, "gradients of h alone, or of every state");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(alone || (blocks - 1) * padded_units < D, "every block owns units");
    static_assert(alone || row_groups == 1, "warps of a block that share a ring own all of its sequences");

    // ---- what a step reads: arrays of gates' sums or of inputs, of states before the step, of gradients ----
    static constexpr bool recompute = source == Gates::recomputed;
    using Sums = RecomputedGates<Cell, Type, shape, rows, block.recompute_k_tiles_in_registers>;
    static constexpr unsigned gate_arrays = recompute ? Cell::backward_gates & Cell::input : Cell::saved;
    /// Whether a product reads h before a step from the ring.
    static constexpr bool multiplies_hidden = (recompute && Sums::products != 0) || (inputless_products & ~written_too) != 0;
    static constexpr unsigned state_arrays = Cell::backward_states | (multiplies_hidden ? 1u : 0u);
    static constexpr int read_gates = count_bits(gate_arrays);
    static constexpr int read_states = count_bits(state_arrays);
    static constexpr int arrays = read_gates + read_states + state_gradients;
    static constexpr int row_units = recompute ? maximum(padded_units, Sums::padded_k) : padded_units;

    // ---- shared memory, of a block or of a warp that keeps to itself: two buffers for the gates' gradients, the ring ----
    static constexpr int row_bytes = (row_units / 8 | 1) * chunk_bytes;  // odd: no bank conflicts
    using Inputless = PartialGradients<Cell, Type, shape, units, rows, row_bytes, inputless_products & ~written_too>;
    using Layout = MovingLayout<rows>;
    static constexpr int exchange_bytes = multiplied == 0 ? 0 : Layout::bytes(32 * k_tiles);
    static constexpr int buffer_bytes = exchange_bytes + count_bits(staged) * rows * row_bytes;
    static constexpr int sharers = alone ? 32 : threads;
    using Ring = InputRing<Type, shape, arrays, rows, sharers, row_bytes, real_units, Who>;
    static constexpr int ring_at = 2 * buffer_bytes;
    static constexpr int scratch_bytes = transposed_scratch_bytes;  // of a warp, in the ring before and after its use
    static constexpr int held = Inputless::products != 0 ? 1 : 0;  // stages that are read once more in the step after
    static_assert(block.num_stages >= 2 + held, "the ring needs a stage to read and a stage to fill, and those held");
    static constexpr int ring_bytes =
        alone ? block.num_stages * Ring::stage_bytes : maximum(block.num_stages * Ring::stage_bytes, threads / 32 * scratch_bytes);
    using Flags = ResetFlags<sequences, rows, sharers, Who>;
    static constexpr int flags_at = ring_at + ring_bytes;
    static constexpr int step_bytes = flags_at + Flags::bytes;
    static constexpr int step_end = (alone ? unit_warps * row_groups : 1) * step_bytes;
    static constexpr int last_stage = (block.num_stages - 1) * Ring::stage_bytes;

    static_assert(!shared_out || !recompute, "that reads all of h, which only a whole head has");

    // ---- the thread's place ----

    /// Which of the blocks that share the head this is: a constant where it has all of it, and so is its first unit.
    TILESMITH_DEVICE static int rank() {
        if constexpr (!shared_out)
            return 0;
        else if constexpr (alone)
            return static_cast<int>(block_x()) % blocks;
        else
            return static_cast<int>(cluster_rank());
    }
    TILESMITH_DEVICE static int warp_of_block() { return static_cast<int>(thread_index()) / 32; }
    TILESMITH_DEVICE static int first_unit() {
        return alone ? (rank() * unit_warps + warp_of_block() / row_groups) * units : rank() * padded_units;
    }
    /// The sequence, within the block, with which this warp's begin.
    TILESMITH_DEVICE static int first_of_block() { return alone ? warp_of_block() % row_groups * rows : 0; }

    const BackwardArguments& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = alone ? 0 : warp_of_block();  // among those that store together
    const int head = static_cast<int>(block_x()) / blocks;
    const int first_row = static_cast<int>(block_y()) * rows * row_groups + first_of_block();
    const Elements own{
        .batch = in.batch, .warp = first_unit() / units + warp, .head = head, .first_row = first_row, .g = g, .j = j,
        .order = sequences.lengths ? in.order : nullptr};
    const SharedAddress shared = shared_memory() + (alone ? warp_of_block() * step_bytes : 0);

    TileSequences<sequences, rows> tile{in.seq};
    const Flags flags{shared + flags_at};
    ResetRows<sequences, -1> ahead, anew;  // of the steps that are copied, and of those that are prepared
    int shortest = 0;  // the first end of the tile's sequences

    Sums sums;  // unused where the gates were saved
    Inputless inputless;
    Ring ring;
    LaneStores<Type, shape, units, rows, count_bits(stored), how> stores;
    ArrayWriter<shape, rows, sharers, maximum(1, writes), real_units, Who> writer;
    float bias[gates][unit_groups];  // of the gates that are computed again or are nothing but a bias
    float carried[unit_groups][column_tiles][columns][states];  // gradients that later steps send back
    float outside[unit_groups][column_tiles][columns][state_gradients];  // gradients from outside, of the next step to run
    typename Cell::Ready ready[unit_groups][column_tiles][columns];      // what the next step computes before it has them
    static constexpr int elements = unit_groups * column_tiles * columns;
    unsigned initial[states][ceil_div(elements, 2)];  // the initial states, a pair of elements a word, where resets ask for them
    float sent[unit_groups][column_tiles][columns][states];     // and what of their gradients resets have sent
    unsigned begins = 0;    // the rows that begin anew at the step that is prepared next,
    unsigned restarts = 0;  // and at the step after the one that is run next

    // ---- before the first step ----

    /// By all warps of a block, those that own nothing too.
    TILESMITH_DEVICE void find_ends() {
        tile.template prepare<rows * row_groups>(in, first_row, lane, static_cast<int>(block_y()) * rows * row_groups);
        if constexpr (sequences.lengths) shortest = tile.least_end(in, first_row, lane, 0);
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

    /// Zero what is read but never written: the padding of K, and of the ring that of a padded head and, where there
    /// are fewer steps than stages, the rest. And bring the first resets. Who shares them meets after that.
    TILESMITH_DEVICE void clear_padding() const {
        const int thread = Who::thread();
        if constexpr (sequences.resets) {
            const int last = (tile.steps - 1) / Flags::part;
            flags.begin_copy(in, first_row, last);
            flags.begin_copy(in, first_row, last - 1);
            cp_async_commit();
            cp_async_wait<0>();
        }
        if constexpr (multiplied != 0 && recurrent_gates * padded_units % 32 != 0)
            for (int i = thread; i < 2 * 2 * rows; i += sharers) {
                const int unit_group = recurrent_gates * padded_units / 8 + i % 2;
                const int buffer = i / 2 % 2;
                store_shared_128(shared + buffer * buffer_bytes + Layout::offset(unit_group, i / 4), uint4{0, 0, 0, 0});
            }
        if (row_units != real_units || sequences.lengths || in.seq < block.num_stages)
            for (int i = thread; i < block.num_stages * Ring::stage_bytes / chunk_bytes; i += sharers)
                store_shared_128(shared + ring_at + i * chunk_bytes, uint4{0, 0, 0, 0});
    }

    /// The number of an element among the lane's.
    TILESMITH_DEVICE static constexpr int number(int unit_group, int column_tile, int column) {
        return (unit_group * column_tiles + column_tile) * columns + column;
    }

    TILESMITH_DEVICE void load_last() {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                unsigned short word = 0;
                if (in.d_last != nullptr && own.real(unit_group, column_tile, column))
                    word = load_global_16(in.d_last + own.state_index(s, unit_group, column_tile, column));
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
                    unsigned short word = 0;
                    if (in.initial != nullptr && own.real(unit_group, column_tile, column))
                        word = load_global_16(in.initial + own.state_index(s, unit_group, column_tile, column));
                    const int element = number(unit_group, column_tile, column);
                    unsigned& pair = initial[s][element / 2];
                    pair = element % 2 == 0 ? word : pair | static_cast<unsigned>(word) << 16;
                }
            });
    }

    // ---- saved values and gradients in, the gates' gradients out ----

    /// A unit of the head, from one of the block: padding takes another's.
    TILESMITH_DEVICE int real_unit(int unit) const {
        return !shared_out || !Elements::padded ? first_unit() + unit : minimum(first_unit() + unit, D - Ring::width);
    }

    TILESMITH_DEVICE static bool is_state(int array) { return array >= read_gates && array < read_gates + read_states; }

    TILESMITH_DEVICE void prepare_transfers() {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        ring.prepare(shared + ring_at, [&](int array, int row, int unit) {
            const long long sequence = sequence_of(row);
            const long long step = sequence * in.seq + tile.steps - 1;
            const long long at = (step * shape.heads + head) * D + real_unit(unit);
            if (array < read_gates) {
                const long long input = rank_among(Cell::input, nth_bit(gate_arrays, array));
                if constexpr (recompute) return in.wx + ((step * input_gates + input) * shape.heads + head) * D + real_unit(unit);
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
        const auto target = [&](int i, int row, int unit) {
            const long long sequence = sequences.lengths ? sequence_of(row) : first_row + row;
            const long long step = sequence * in.seq + in.seq - 1;
            const bool input = i < input_gates || written_too == 0;
            const long long gate = input ? step * input_gates + i : step * count_bits(written_too) + i - input_gates;
            return (input ? in.d_wx : in.d_inputless) + (gate * shape.heads + head) * D + first_unit() + unit;
        };
        stores.prepare(own, lane, [&](int i, int row, int unit) { return gradient_at(nth_bit(stored, i), row, unit - first_unit()); });
        writer.prepare(writes == 0 ? 0 : in.batch - first_row, D - first_unit(), target, [&](int i, int row, int unit) {
            return gradient_at(writes == 0 ? 0 : i < input_gates ? nth_bit(Cell::input, i) : nth_bit(written_too, i - input_gates),
                               row, unit);
        });
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - tile.steps, [](int i) { return write_step(i); });
    }

    /// The sequence of a row of the tile; past the batch any will do.
    TILESMITH_DEVICE int sequence_of(int row) const {
        return sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
    }

    TILESMITH_DEVICE static int copy_step(int array) {
        return -(recompute && array < read_gates ? input_gates * shape.heads * D : shape.heads * D);
    }

    /// Begin copying what step t reads, and move on to step t - 1. Before step 0, and of the rows that `begin` anew if a product
    /// reads them from the ring, lie the initial states.
    TILESMITH_DEVICE void begin_copy(int stage_offset, int t, unsigned begins) {
        if (t > 0 && (!multiplies_hidden || begins == 0)) {
            ring.begin_copy(stage_offset, [](int array) { return copy_step(array); });
            return;
        }
#pragma unroll
        for (int i = 0; i < Ring::copies; ++i) {
            if (!Ring::copies_too(i)) continue;
            int array, row, unit;
            Ring::locate(i, array, row, unit);
            const SharedAddress to = ring.to[i] + stage_offset;
            if constexpr (sequences.resets && multiplies_hidden) {  // these come often: no branch
                const bool initial = is_state(array) && (t == 0 || (begins >> row & 1) != 0);
                const bool given = initial && in.initial != nullptr;
                Ring::copy_or_zeros(to, given ? initial_state(array, row, unit) : ring.from[i], given || !initial);
                ring.from[i] += copy_step(array);
            } else if (!is_state(array)) {
                Ring::copy(to, ring.from[i]);
            } else if (in.initial != nullptr) {
                Ring::copy(to, initial_state(array, row, unit));
            } else {
#pragma unroll
                for (int word = 0; word < Ring::width; ++word) store_shared_16(to + 2 * word, 0);
            }
        }
    }

    TILESMITH_DEVICE const unsigned short* initial_state(int array, int row, int unit) const {
        const int s = nth_bit(state_arrays, array - read_gates);
        const int sequence = sequence_of(row);
        return in.initial + ((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + real_unit(unit);
    }

    TILESMITH_DEVICE static int write_step(int i) {
        return -(i < input_gates || written_too == 0 ? input_gates : count_bits(written_too)) * shape.heads * D;
    }

    TILESMITH_DEVICE void write_out(int buffer) {
        writer.write(buffer * buffer_bytes, [](int i) { return write_step(i); });
    }

    // ---- one step ----

    /// Where a gate's gradient goes in the first buffer, of a unit of the block: to the exchange, or where it is written out from only.
    TILESMITH_DEVICE SharedAddress gradient_at(int gate, int row, int unit) const {
        const int unit_group = (rank_among(Cell::recurrent, gate) * padded_units + unit) / 8;
        const int apart = exchange_bytes + (rank_among(staged, gate) * rows + row) * row_bytes + 2 * unit;
        return shared + (has(multiplied, gate) ? Layout::offset(unit_group, row) + 2 * (unit % 8) : apart);
    }

    /// Where h before the step lies in a stage of the ring, if it is read: state 0 comes first.
    static constexpr int hidden_at = read_gates * rows * row_bytes;
    /// The gates of which a part is no saved sum and no input.
    static constexpr unsigned recomputed_gates = recompute ? Cell::backward_gates : Cell::backward_gates & ~Cell::saved;

    /// The first half of a pointwise step, from a stage of the ring: what waits for no gradient of a later step.
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
                        const int element = number(unit_group, column_tile, column);
                        const unsigned pair = initial[s][element / 2];
                        previous[s] = element % 2 == 0 ? unpack_low<Type>(pair) : unpack_high<Type>(pair);
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

    /// The second half of the n-th step: the gates' gradients; carries the states'. whole: whether it is before all ends.
    template <bool whole>
    TILESMITH_DEVICE void differentiate(Gradients& d_gates, int n, Constant<whole>) {
        send_to_initial(n);
        if constexpr (sequences.lengths && !whole) {
            const int t = tile.steps - 1 - n;
            if (t >= shortest - 1) {
                differentiate_elements<true>(d_gates, false, tile.running(t), tile.running(t + 1));
                return;
            }
        }
        differentiate_elements<false>(d_gates, n == 0);
    }

    /// last: whether no step of a sequence comes after it, of all rows; or, where it is `some`, it is a step of those whose bits
    /// are set in `running`, and the one after it of those in `ran`.
    template <bool some>
    TILESMITH_DEVICE void differentiate_elements(Gradients& d_gates, bool last, unsigned running = ~0u, unsigned ran = 0) {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            float(&carry)[states] = carried[unit_group][column_tile][column];
            const int row = own.row(column_tile, column);
            const bool ends = some ? (ran >> row & 1) == 0 : last;
            float d_next[states], later[states];
#pragma unroll
            for (int s = 0; s < states; ++s) {
                later[s] = carry[s];
                d_next[s] = s == 0 && !ends ? Cell::recurrent_gradient(carry[0]) : carry[s];
                if (s < state_gradients) d_next[s] += outside[unit_group][column_tile][column][s];
            }
            Cell::backward(ready[unit_group][column_tile][column], d_next, d_gates[unit_group][column_tile][column], carry);
            if (some && (running >> row & 1) == 0) {  // behind the end: what a step reads there may be NaN
#pragma unroll
                for (int q = 0; q < gates; ++q) d_gates[unit_group][column_tile][column][q] = 0.0f;
#pragma unroll
                for (int s = 0; s < states; ++s) carry[s] = later[s];
            }
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

    /// In the n-th step, copy what a later one reads into the stage that nobody reads any more.
    TILESMITH_DEVICE void refill(int n, int stage_offset) {
        const int t = tile.steps - 1 - n - (block.num_stages - held);
        if (t >= 0) begin_copy(stage_offset, t, multiplies_hidden ? ahead.at(n) : 0);
        cp_async_commit();
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
            if (tile.steps - n >= shortest) next = n + 1;
        return next;
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
                for (; n + 1 < next; n += 2) {
                    kernel.run_step(n, 0, Constant<true>{});
                    kernel.run_step(n + 1, 1, Constant<true>{});
                }
            }
        } else {
            for (; n + 1 < tile.steps; n += 2) {
                kernel.run_step(n, 0, Constant<true>{});
                kernel.run_step(n + 1, 1, Constant<true>{});
            }
            if (n < tile.steps) kernel.run_step(n, 0, Constant<true>{});
        }
    }

    /// Write the gradients of the initial states.
    TILESMITH_DEVICE void store_initial() const {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = 0; s < states; ++s)
            {
                float gradient = carried[unit_group][column_tile][column][s];
                if constexpr (sequences.resets) gradient += sent[unit_group][column_tile][column][s];
                store_global_16(in.d_initial + own.state_index(s, unit_group, column_tile, column), to_16<Type>(gradient));
            }
        });
    }
};

}  // namespace tilesmith
