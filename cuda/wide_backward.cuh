// The wide schedule, backward: blocks as forward (wide_forward.cuh), from the last step to the first.
//
// A block makes the gradients of its units' gates, and multiplies R of these, turned, with them: its part of the gradient of h of all
// units of the step before. Each warp stores its sums for the block that owns their units, which adds those of all blocks, always in
// the same order: a reduce-scatter through L2. They travel as they lie in the accumulators, since the lane that has them here owns
// their elements there.
//
// Sums have two slots in global memory: who stores those of a step has seen that all blocks have sent the sums of the step after it, and a
// block does that when it has read those of the step after that.
//
// Lanes: g = lane / 4, j = lane % 4. A warp that owns elements has 16 units: lane (g, j) units g and g + 8, of every 8 sequences 2j
// and 2j + 1.
#pragma once

#include "grid_barrier.cuh"
#include "lane_elements.cuh"
#include "lane_loads.cuh"
#include "lane_stores.cuh"
#include "wide_backward_transfers.cuh"
#include "wide_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/wide/backward.py states their constraints.
struct WideBackwardTiling {
    int blocks;                // that share a head
    int batch_tile;            // sequences of a block
    int warpgroups;            // of a block: they share the product's rows, and the elements
    int k_tiles_in_registers;  // of a block's groups of 16 k, how many have their R in registers
    int sum_bytes;             // of a sum on its way: 2, rounded as an element is, or 4
    int prepared;              // groups of 8 sequences of a warp whose step is prepared while it waits for sums: 0 or 1
};

/// Sums of 8 sequences on their way: a lane's four, of its two units.
template <class Type, int bytes>
struct SumsOnTheirWay {
    static constexpr int words = bytes;  // a lane's
    static constexpr int elements = 2 * words;
    static_assert(bytes == 2 || bytes == 4, "16 bits, or a float");

    TILESMITH_DEVICE static void store(unsigned short* to, const float (&sums)[4]) {
        if constexpr (bytes == 2)
            store_global_64(to, uint2{pack<Type>(sums[0], sums[1]), pack<Type>(sums[2], sums[3])});
        else
            store_global_128(to, uint4{__float_as_uint(sums[0]), __float_as_uint(sums[1]), __float_as_uint(sums[2]), __float_as_uint(sums[3])});
    }
    TILESMITH_DEVICE static void load(unsigned (&found)[words], const unsigned short* from) {
        if constexpr (bytes == 2) {
            const uint2 two = load_sent_64(from);
            found[0] = two.x, found[1] = two.y;
        } else {
            const uint4 four = load_sent_128(from);
            found[0] = four.x, found[1] = four.y, found[2] = four.z, found[3] = four.w;
        }
    }
    TILESMITH_DEVICE static float value(const unsigned (&found)[words], int i) {
        if constexpr (bytes == 4) return __uint_as_float(found[i]);
        return i % 2 == 0 ? unpack_low<Type>(found[i / 2]) : unpack_high<Type>(found[i / 2]);
    }
};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all. returned: bit s where a gradient of state s
/// lives from step to step; that of h need not where R alone returns it and all sequences end together.
template <class Cell, class Type, FixedShape shape, WideBackwardTiling tiling, int state_gradients, unsigned returned, Stores how,
          Sequences sequences = Sequences{}>
struct WideBackward : WideBackwardTransfers<Cell, Type, shape, tiling.blocks, tiling.batch_tile, 128 * tiling.warpgroups, state_gradients, sequences> {
    using Base = WideBackwardTransfers<Cell, Type, shape, tiling.blocks, tiling.batch_tile, 128 * tiling.warpgroups, state_gradients, sequences>;
    using typename Base::Gradients, typename Base::Own;
    using Base::D, Base::units, Base::products, Base::stored, Base::results, Base::arrays, Base::result_row, Base::input_row,
        Base::plane_bytes, Base::inputs_at, Base::in, Base::thread, Base::rank, Base::head, Base::shared, Base::first_unit, Base::first_row,
        Base::own_of_rows, Base::result_at, Base::load_inputs, Base::write_results, Base::write_rest;

    // ---- sizes ----
    static constexpr int states = Cell::states, gates = Cell::gates;
    static constexpr int biases = count_bits(Gradients::inputless_biases);
    /// Of an element, from step to step: what the step itself returned, and its share of the gradients of biases.
    static constexpr int returns = count_bits(returned), kept = returns + biases;
    static constexpr bool multiplies = !Cell::recurrent_cut;

    static constexpr int blocks = tiling.blocks, warpgroups = tiling.warpgroups, rows = tiling.batch_tile;
    static constexpr int threads = 128 * warpgroups, warps = 4 * warpgroups;
    static constexpr int unit_tiles = units / 16;  // of 16 units, which a warp owns
    static constexpr int row_warps = warps / unit_tiles;  // that own the same units, each with sequences of its own
    static constexpr int warp_rows = rows / row_warps;
    static constexpr int k_tiles = products * unit_tiles;
    static constexpr int tiles = ceil_div(ceil_div(D, 64), warpgroups);  // of 64 rows of the product, of a warpgroup
    static constexpr int all_tiles = tiles * warpgroups;
    using Matrix = WideMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, rows>;
    using Elements = LaneElements<shape, 16, warp_rows, D, sequences.lengths>;
    static constexpr int unit_groups = 2, column_tiles = warp_rows / 8, columns = 2;

    static_assert(blocks * unit_tiles * 16 == D, "all blocks have whole tiles of 16 units");
    static_assert(row_warps * unit_tiles == warps && column_tiles * 8 * row_warps == rows, "all warps own as many elements");
    static_assert(products > 0, "a recurrent cell needs a recurrent product");
    static_assert(state_gradients == 1 || state_gradients == states, "gradients of h alone, or of every state");
    static_assert(threads <= 1024, "a block has at most 1024 threads");

    // ---- shared memory: what a step reads and writes, R ----
    static constexpr int weights_at = ceil_div(Base::transfer_bytes, 128) * 128;
    static constexpr int shared_bytes = weights_at + warpgroups * Matrix::shared_bytes;

    // ---- what blocks store for each other: [slot][tile of the batch][head][16 units][block][8 sequences][lane][4 sums] ----
    using OnTheirWay = SumsOnTheirWay<Type, tiling.sum_bytes>;
    static constexpr int part_elements = rows / 8 * 32 * OnTheirWay::elements;  // of 16 units, from one block
    static constexpr int group_elements = D / 16 * blocks * part_elements;

    // ---- the thread's place ----
    const int lane = thread % 32;
    const int warp = thread / 32;
    const int unit_tile = warp % unit_tiles;
    const int row_warp = warp / unit_tiles;
    /// Who share a head and a tile of the batch.
    TILESMITH_DEVICE int group() const { return static_cast<int>(block_y()) * shape.heads + static_cast<int>(block_x()) / blocks; }
    const Elements own{.batch = in.batch, .warp = rank * unit_tiles + unit_tile, .head = head, .first_row = first_row + row_warp * warp_rows,
                       .g = lane / 4, .j = lane % 4, .order = sequences.lengths ? in.order : nullptr};

    // ---- what lives through the sequence ----
    Matrix matrix{shared + weights_at + warp / 4 * Matrix::shared_bytes};
    float bias[gates][unit_groups];  // of the gates that are nothing else
    float carried[unit_groups][column_tiles][columns][maximum(kept, 1)];
    LaneStores<Type, shape, 8, 8, results, how> results_to;
    TILESMITH_STAMPED(Stamps stamps;)

    TILESMITH_DEVICE explicit WideBackward(const BackwardArguments& arguments) : Base(arguments) {}

    TILESMITH_DEVICE LaneElements<shape, 8, 8> block_of_lane() const {
        return {.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4};
    }

    /// The sums for 16 units of the head, from one block.
    TILESMITH_DEVICE unsigned short* sums_of(int slot, int units_of_16, int block) const {
        const long long place = static_cast<long long>(slot) * ceil_div(in.batch, rows) * shape.heads + group();
        return (tiling.sum_bytes == 2 ? in.d_sums : in.d_gates) + place * group_elements + (units_of_16 * blocks + block) * part_elements + lane * OnTheirWay::elements;
    }
    TILESMITH_DEVICE unsigned* counter() const { return in.counters + group() * GridBarrier::words; }

    // ---- before the first step and after the last ----

    /// What resets send to an initial state.
    TILESMITH_DEVICE float* to_initial(int s, int unit_group, int column_tile, int column) const {
        const int element = (unit_group * column_tiles + column_tile) * columns + column;
        const long long block = static_cast<long long>(group()) * blocks + rank;
        return in.d_carried + ((block * states + s) * (unit_groups * column_tiles * columns) + element) * threads + thread;
    }

    /// The gradient of a state after the last step.
    TILESMITH_DEVICE float last_gradient(int s, int unit_group, int column_tile, int column) const {
        Elements anew = own;  // addresses are not kept
        anew.g = opaque(own.g);
        if (in.d_last == nullptr || !anew.real(unit_group, column_tile, column)) return 0.0f;
        return to_real<Type>(load_global_16(in.d_last + anew.state_index(s, unit_group, column_tile, column)));
    }
    /// The gradient of a state that later steps have returned, R's part apart.
    TILESMITH_DEVICE float returned_gradient(int s, int unit_group, int column_tile, int column) const {
        return has(returned, s) ? carried[unit_group][column_tile][column][has(returned, s) ? rank_among(returned, s) : 0] : 0.0f;
    }

    TILESMITH_DEVICE void prepare() {
        if constexpr (multiplies)
            matrix.load_turned(lane, warp % 4, D, [&](int tile, int k_tile) {
                const int gate = k_tile / unit_tiles, unit = first_unit + k_tile % unit_tiles * 16, to = units_of_16(tile) * 16;
                return to < D ? in.r + (static_cast<long long>(gate * shape.heads + head) * D + unit) * D + to : nullptr;
            });
        load_bias<Type, Cell>(bias, in.b, Cell::backward_gates & ~Cell::saved, own);
        results_to.prepare(block_of_lane(), lane, [&](int array, int row, int unit) { return result_at(array, row, unit); });
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                if (has(returned, s))
                    carried[unit_group][column_tile][column][has(returned, s) ? rank_among(returned, s) : 0] = last_gradient(s, unit_group, column_tile, column);
                if constexpr (sequences.resets) store_global_float(to_initial(s, unit_group, column_tile, column), 0.0f);
            }
#pragma unroll
            for (int number = returns; number < kept; ++number) carried[unit_group][column_tile][column][number] = 0.0f;
        });
    }

    /// The gradients of the states before the first step; and of biases, a part for each warp along the batch.
    TILESMITH_DEVICE void finish(int steps) {
        for_each_sum(steps - 1, [] {}, [&](int column_tile, const float (&sums)[4]) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int unit_group = i / 2, column = i % 2;
                if (!own.real(unit_group, column_tile, column)) continue;
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    float gradient = returned_gradient(s, unit_group, column_tile, column);
                    if (s == 0) gradient += sums[i];
                    if constexpr (sequences.resets) gradient += load_stored_float(to_initial(s, unit_group, column_tile, column));
                    store_global_16(in.d_initial + own.state_index(s, unit_group, column_tile, column), to_16<Type>(gradient));
                }
            }
        });
#pragma unroll
        for (int number = 0; number < biases; ++number)
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group) {
                float sum = 0.0f;
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                    for (int column = 0; column < columns; ++column) sum += carried[unit_group][column_tile][column][returns + number];
                sum += shuffle_xor(sum, 1);  // the lanes that have the same unit
                sum += shuffle_xor(sum, 2);
                const long long part = static_cast<long long>(block_y()) * row_warps + row_warp;
                if (own.j == 0)
                    store_global_float(in.d_b_partial + ((part * biases + number) * shape.heads + head) * D + own.unit(unit_group), sum);
            }
    }

    // ---- one step ----

    /// Of the lane's elements of 8 sequences: what waits for no sums, and the words of their gradients from outside.
    struct Prepared {
        typename Cell::Ready ready[unit_groups][columns];
        unsigned outside[unit_groups][state_gradients];
    };
    TILESMITH_DEVICE void prepare_step(Prepared& prepared, int column_tile) const {
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group) {
            const int chunk = unit_tile * unit_groups + unit_group, first = row_warp * warp_rows + 8 * column_tile;
            unsigned words[arrays];
            load_lane_words<arrays>(words, shared + inputs_at + chunk * input_row + first * chunk_bytes, plane_bytes, lane);
#pragma unroll
            for (int column = 0; column < columns; ++column)
                prepare_gradient<Cell, Type, state_gradients>([&](int array) { return value_of(words[array], column); },
                                                              [&](int q) { return bias[q][unit_group]; }, prepared.ready[unit_group][column]);
#pragma unroll
            for (int s = 0; s < state_gradients; ++s)
                prepared.outside[unit_group][s] = words[Gradients::read_gates + Gradients::read_states + s];
        }
    }
    TILESMITH_DEVICE static float value_of(unsigned word, int column) {
        return column == 0 ? unpack_low<Type>(word) : unpack_high<Type>(word);
    }

    /// The step of the lane's elements, from what it reads and what the n-th step sends back. last: of the tile.
    TILESMITH_DEVICE void step(int n, int t, bool last) {
        Prepared prepared;
        const auto before = [&] {
            if constexpr (tiling.prepared) prepare_step(prepared, 0);
        };
        for_each_sum(n, before, [&](int column_tile, const float (&sums)[4]) {
            if (!tiling.prepared || column_tile > 0) prepare_step(prepared, column_tile);
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group) {
                const int chunk = unit_tile * unit_groups + unit_group, first = row_warp * warp_rows + 8 * column_tile;
                float made[columns][results];
#pragma unroll
                for (int column = 0; column < columns; ++column)
                    step_of(prepared, sums[2 * unit_group + column], unit_group, column_tile, column, t, last, made[column]);
                results_to.store(
                    block_of_lane(), chunk * result_row + first * chunk_bytes,
                    [&](int array, int, int, int column) { return made[column][array]; },
                    [&](int array, int row, int unit) { return result_at(array, row, unit); });
            }
        });
    }

    /// The step of one element.
    TILESMITH_DEVICE void step_of(const Prepared& prepared, float sent_back, int unit_group, int column_tile, int column, int t, bool last,
                                  float (&made)[results]) {
        const int row = row_warp * warp_rows + own.row(column_tile, column);
        const bool runs = own_of_rows.runs(row, t);
        if (sequences.lengths) last = last || !own_of_rows.runs(row, t + 1);
        auto& keeps = carried[unit_group][column_tile][column];
        float of_element[states], d_gate[gates];
#pragma unroll
        for (int s = 0; s < states; ++s) {
            of_element[s] = returned_gradient(s, unit_group, column_tile, column);
            if (own_of_rows.begins_next(row)) {  // what comes back is the initial states'
                float* sum = to_initial(s, unit_group, column_tile, column);
                store_global_float(sum, load_stored_float(sum) + of_element[s] + (s == 0 ? sent_back : 0.0f));
                of_element[s] = 0.0f;
            } else if (s == 0) {
                of_element[0] += sent_back;
                if (!last) of_element[0] = Cell::recurrent_gradient(of_element[0]);
            }
        }
        finish_gradient<Cell, Type, state_gradients>(
            prepared.ready[unit_group][column], [&](int s) { return value_of(prepared.outside[unit_group][s], column); }, runs, of_element,
            d_gate);
#pragma unroll
        for (int s = 0; s < states; ++s)
            if (has(returned, s)) keeps[has(returned, s) ? rank_among(returned, s) : 0] = of_element[s];
        const bool real = own.real(unit_group, column_tile, column);
#pragma unroll
        for (int q = 0; q < gates; ++q) {
            if (has(stored, q)) made[has(stored, q) ? rank_among(stored, q) : 0] = d_gate[q];
            if (has(Gradients::inputless_biases, q))
                keeps[returns + (has(Gradients::inputless_biases, q) ? rank_among(Gradients::inputless_biases, q) : 0)] += real ? d_gate[q] : 0.0f;
        }
    }

    // ---- the product ----

    /// The 16 units of the head that are the warp's rows of a tile. A block begins with others than its neighbour.
    TILESMITH_DEVICE int units_of_16(int tile) const { return (tile * warpgroups + warp / 4 + rank) % all_tiles * 4 + warp % 4; }

    /// Multiply, tile by tile, store the n-th step's sums for those that own the units, and say so; meanwhile() when the first has begun.
    template <class Meanwhile>
    TILESMITH_DEVICE void send_sums(int n, Meanwhile meanwhile) const {
        const MatrixDescriptor gradients = matrix_descriptor(shared, result_row, 8 * chunk_bytes);
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
            float sums[Matrix::column_tiles][4];
            matrix.multiply_tile(sums, tile, gradients);
            if (tile == 0) meanwhile();
            Matrix::wait_for_tile(sums);
            const int to = units_of_16(opaque(tile));  // addresses are computed anew
            if (64 * all_tiles != D && 16 * to >= D) continue;
            unsigned short* at = sums_of(n % 2, to, rank);
#pragma unroll
            for (int i = 0; i < Matrix::column_tiles; ++i) OnTheirWay::store(at + i * 32 * OnTheirWay::elements, sums[i]);
        }
        sync_warp();
        if (lane == 0) signal_global(counter());
    }

    // ---- sums of all blocks ----

    /// How many blocks' sums for 8 sequences are asked for at a time: what there are registers for.
    static constexpr int most_asked = 16 / OnTheirWay::words;
    TILESMITH_DEVICE static constexpr int asked_at_once() {
        int count = minimum(blocks, most_asked);
        while (blocks % count != 0) --count;
        return count;
    }
    static constexpr int asked = asked_at_once();
    using Found = unsigned[asked][OnTheirWay::words];

    TILESMITH_DEVICE void ask_for_sums(Found& found, int n, int column_tile, int first_block) const {
        const unsigned short* from = sums_of(n % 2, rank * unit_tiles + unit_tile, first_block) +
                                     (row_warp * column_tiles + column_tile) * 32 * OnTheirWay::elements;
#pragma unroll
        for (int i = 0; i < asked; ++i) OnTheirWay::load(found[i], from + i * part_elements);
    }
    TILESMITH_DEVICE static void add_sums(float (&sums)[4], const Found& found) {
#pragma unroll
        for (int block = 0; block < asked; ++block)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[i] += OnTheirWay::value(found[block], i);
    }

    /// Calls function(column_tile, sums) for the lane's elements of 8 sequences after the other, with the sums of all blocks of the n-th
    /// step, when all have come. Those of the next are on their way meanwhile. n < 0: what h is given after the last step. before():
    /// when what the step reads is there.
    template <class Before, class Function>
    TILESMITH_DEVICE void for_each_sum(int n, Before before, Function function) {
        const bool come = multiplies && n >= 0;
        cp_async_wait<0>();
        sync_block();  // what the step reads is there; the results of the step before are written
        before();
        if (come) GridBarrier::wait(counter(), static_cast<unsigned>(blocks * warps) * (n + 1));
        TILESMITH_STAMPED(stamps.mark(Phase::exchange);)
        Found found;
        if (come) ask_for_sums(found, n, 0, 0);
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
            float sums[4] = {};
            if (n < 0 && !has(returned, 0))
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[i] = last_gradient(0, i / 2, column_tile, i % 2);
            if (come) {
                add_sums(sums, found);
#pragma unroll 1
                for (int first = asked; first < blocks; first += asked) {
                    ask_for_sums(found, n, column_tile, first);
                    add_sums(sums, found);
                }
                if (column_tile + 1 < column_tiles) ask_for_sums(found, n, column_tile + 1, 0);
            }
            function(column_tile, sums);
        }
    }

    TILESMITH_DEVICE void run() {
        const int steps = longest<sequences>(in, first_row, rows, lane);
        own_of_rows.look_up(in, first_row, steps - 1, thread, threads);
        if constexpr (Own::any) sync_block();
        load_inputs(steps - 1);
        prepare();
        TILESMITH_STAMPED(stamps.start(in.stamps, warp == 0);)
        for (int n = 0; n < steps; ++n) {
            const int t = steps - 1 - n;
            step(n - 1, t, n == 0);
            TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
            own_of_rows.look_up(in, first_row, t - 1, thread, threads);
            fence_shared_for_wgmma();
            sync_block();  // the gates' gradients are there; what the step reads is read
            TILESMITH_STAMPED(stamps.mark(Phase::meeting);)
            const auto ask = [&] {
                if (t > 0) load_inputs(t - 1);
            };
            if constexpr (multiplies)
                send_sums(n, ask);
            else
                ask();
            TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
            write_results(t);
            TILESMITH_STAMPED(stamps.step(Phase::transfers);)
        }
        TILESMITH_STAMPED(stamps.finish();)
        finish(steps);
        if constexpr (sequences.lengths) write_rest(steps);
    }
};

}  // namespace tilesmith
