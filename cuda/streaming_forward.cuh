// The streaming schedule, forward: for heads of any size and batches of any size. The work of a step is cut into tiles: some
// units of a head with all their gates, for some of the sequences. All blocks of the launch run at the same time, and each has
// one tile for the whole sequence, or takes several in turn, in every step the same ones.
//
// A step of a tile is a product (streamed_product.cuh) whose rows are gates of units: R streams in from L2, but for the parts
// that stay in shared memory, and so does h, which the blocks store for each other in global memory. Then come the step of the
// lanes' elements, h for the others, and, when that has been said (grid_barrier.cuh), the results. h has two slots: who stores
// h(t + 1) has seen that all of h(t) is there, and that comes from blocks that have read h(t - 1).
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1: a warp's
// rows are such that a lane has all gates of its units.
#pragma once

#include "forward_step.cuh"
#include "lane_stores.cuh"
#include "streaming_block.cuh"

namespace tilesmith {

/// Rows of the product for a warp's units: [gate][unit], in tiles of 16.
template <class Cell, StreamingTiling tiling>
inline constexpr int streaming_rows = ceil_div(count_bits(Cell::recurrent) * tiling.units_per_warp, 16) * 16;

/// Planes: inputs, which results replace.
template <class Cell, Save save>
inline constexpr int streaming_planes = maximum(count_bits(Cell::input), result_arrays<Cell, save>);

template <class Cell, class Type, FixedShape shape, StreamingTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct StreamingForward
    : StreamingBlock<Type, shape, tiling, streaming_rows<Cell, tiling>, 1, false, streaming_planes<Cell, save>, sequences> {
    using Base = StreamingBlock<Type, shape, tiling, streaming_rows<Cell, tiling>, 1, false, streaming_planes<Cell, save>, sequences>;
    using typename Base::Elements;
    using typename Base::Product;
    using typename Base::Tile;
    using typename Base::Word;
    using typename Base::Number;
    static constexpr int D = Base::D, width = Base::width, rows = Base::rows, threads = Base::threads, part_k = Base::part_k;
    static constexpr int warp_units = Base::warp_units, columns = Base::columns;
    static constexpr int unit_groups = Base::unit_groups, column_tiles = Base::column_tiles;
    static constexpr bool in_turn = Base::in_turn;

    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int arrays = result_arrays<Cell, save>;
    static_assert(recurrent_gates > 0, "a recurrent cell needs a recurrent product");

    using Inputs = typename Base::template Planes<input_gates>;
    using Results = LaneStores<Type, shape, 8, 8, arrays, how>;

    const ForwardArgumentsOf<Word>& in;
    Results results_to;
    Number state[in_turn ? 1 : unit_groups][in_turn ? 1 : column_tiles][columns][states];  // where a block has one tile

    TILESMITH_DEVICE explicit StreamingForward(const ForwardArgumentsOf<Word>& in) : Base{in.batch, sequences.lengths ? in.order : nullptr}, in(in) {}

    TILESMITH_DEVICE Word* hidden_of(const Tile& tile, int slot) const { return this->stored_of(in.hidden, tile, slot); }
    TILESMITH_DEVICE unsigned* counter_of(const Tile& tile) const { return in.counters + tile.group() * GridBarrier::words; }

    // ---- copies ----

    /// Which row of R [G_rec, H, D] a row of the product is. Past the head's units it is that of its last: what comes of it is
    /// dropped.
    TILESMITH_DEVICE static int matrix_row(int head, int first_unit, int row) {
        const int of_warp = row % streaming_rows<Cell, tiling>;
        const int gate = minimum(of_warp / warp_units, recurrent_gates - 1);
        const int unit = first_unit + row / streaming_rows<Cell, tiling> * warp_units + of_warp % warp_units;
        return (gate * shape.heads + head) * D + minimum(unit, D - 1);
    }

    /// Begin copying a part of R.
    TILESMITH_DEVICE void load_matrix(int head, int first_unit, SharedAddress to, int part) const {
        constexpr int row_copies = part_k / width, copies = Base::product_tile.rows * row_copies;
#pragma unroll(unrolled(ceil_div(copies, threads)))
        for (int i = 0; i < ceil_div(copies, threads); ++i) {
            const int copy = this->thread + i * threads;
            if (copies % threads != 0 && copy >= copies) continue;
            const int row = copy / row_copies, k = copy % row_copies * width;
            const int previous = part * part_k + k;
            const bool real = D % part_k == 0 || previous < D;
            constexpr int chunk = chunk_elements<Type>;
            copy_or_clear<Type, width>(to + Product::MatrixRows::offset(row, k / chunk) + k % chunk * element_bytes<Type>,
                                       in.r + static_cast<long long>(matrix_row(head, first_unit, row)) * D + (real ? previous : 0),
                                       real);
        }
    }
    TILESMITH_DEVICE auto matrix_of(const Tile& tile) const {
        return [this, head = tile.head, unit = tile.first_unit()](SharedAddress to, int part) { load_matrix(head, unit, to, part); };
    }

    /// Ask for the inputs of a step. Past the batch and the head's units any will do.
    TILESMITH_DEVICE void load_inputs(const Tile& tile, int t) const {
        this->template for_each_vector<input_gates>([&](int gate, int row, int unit, SharedAddress to) {
            const long long sequence = this->sequence_of(tile, row);
            const int real_unit = minimum(tile.first_unit() + unit, D - width);
            const long long at = ((sequence * in.seq + t) * input_gates + gate) * shape.heads + tile.head;
            copy_or_clear<Type, width>(to, in.wx + at * D + real_unit, true);
        });
    }

    /// Write the results of a step, and the last h.
    TILESMITH_DEVICE void write_results(const Tile& tile, int t) const {
        constexpr int bytes = width * element_bytes<Type>;
        const auto write = [&](Word* to, int steps, int step, int row, int unit, SharedAddress from) {
            const int real_unit = tile.first_unit() + unit;
            if (tile.first_row() + row >= in.batch || real_unit >= D) return;
            const long long sequence = this->sequence_of(tile, row);
            copy_to_global<bytes>(to + ((sequence * steps + step) * shape.heads + tile.head) * D + real_unit, from);
        };
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        this->template for_each_vector<arrays>([&](int array, int row, int unit, SharedAddress from) {
            write(result_array<Cell, save>(in, array, array_elements), in.seq, t, row, unit, from);
        });
        if (!sequences.lengths && t + 1 == in.seq)
            this->template for_each_vector<1>([&](int, int row, int unit, SharedAddress from) { write(in.last, 1, 0, row, unit, from); });
    }

    /// Write zeros for the steps from `t` on.
    TILESMITH_DEVICE void write_rest(const Tile& tile, int t) const {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        for (; t < in.seq; ++t)
            this->template for_each_vector<arrays>([&](int array, int row, int unit, SharedAddress) {
                const int place = tile.first_row() + row, real_unit = tile.first_unit() + unit;
                if (place >= in.batch || real_unit >= D) return;
                const long long step = static_cast<long long>(this->sequence_of_place(place)) * in.seq + t;
                zero_global<width * element_bytes<Type>>(result_array<Cell, save>(in, array, array_elements) +
                                                         (step * shape.heads + tile.head) * D + real_unit);
            });
    }

    // ---- states from step to step ----

    TILESMITH_DEVICE Number* carried_at(const Tile& tile, int s, int unit_group, int column_tile, int column) const {
        return Base::carried_at(in.carried, tile, states, s, unit_group, column_tile, column);
    }
    TILESMITH_DEVICE Number state_of(const Tile& tile, int s, int unit_group, int column_tile, int column) const {
        if constexpr (in_turn)
            return load_stored(carried_at(tile, s, unit_group, column_tile, column));
        else
            return state[unit_group][column_tile][column][s];
    }
    TILESMITH_DEVICE void keep_state(Number value, const Tile& tile, int s, int unit_group, int column_tile, int column) {
        if constexpr (in_turn)
            store_element(carried_at(tile, s, unit_group, column_tile, column), value);
        else
            state[unit_group][column_tile][column][s] = value;
    }

    /// The states before the first step, of a lane's elements; h for all.
    TILESMITH_DEVICE void begin_tile(const Tile& tile) {
        const Elements own = this->elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                keep_state(initial_state(own, s, unit_group, column_tile, column), tile, s, unit_group, column_tile, column);
            }
        });
        this->store_columns(tile, hidden_of(tile, 0), [&](int, int row, int unit) { return initial_chunk(tile, row, unit); });
        this->arrive(counter_of(tile));
    }

    TILESMITH_DEVICE Number initial_state(const Elements& own, int s, int unit_group, int column_tile, int column) const {
        Word word = 0;
        if (in.initial != nullptr && own.real(unit_group, column_tile, column))
            word = load_element(in.initial + own.state_index(s, unit_group, column_tile, column));
        return to_real<Type>(word);
    }

    /// 16 bytes of the initial h.
    TILESMITH_DEVICE uint4 initial_chunk(const Tile& tile, int row, int unit) const {
        const long long sequence = this->sequence_of_place(tile.first_row() + row);
        const int first = tile.first_unit() + unit;
        if (in.initial == nullptr || tile.first_row() + row >= in.batch || first >= D) return uint4{0, 0, 0, 0};
        return load_row_chunk<Type, width>(in.initial + (sequence * shape.heads + tile.head) * D + first, D - first);
    }

    /// Write the states but h after the last step; h too, where sequences have ends of their own.
    TILESMITH_DEVICE void end_tile(const Tile& tile) const {
        if (!this->has_elements) return;
        const Elements own = this->elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = sequences.lengths ? 0 : 1; s < states; ++s)
                store_element(in.last + own.state_index(s, unit_group, column_tile, column),
                              to_element<Type>(state_of(tile, s, unit_group, column_tile, column)));
        });
    }

    // ---- one step ----

    /// The product of a gate that has one.
    TILESMITH_DEVICE static Number product_of(const typename Product::Sums& sums, int gate, int unit_group, int column_tile, int column) {
        if (!has(Cell::recurrent, gate)) return 0.0f;
        const int rank = rank_among(Cell::recurrent, gate);
        const int tile = warp_units == 8 ? rank / 2 : rank * (warp_units / 16) + unit_group / 2;
        const int upper = warp_units == 8 ? rank % 2 : unit_group % 2;
        return sums[has(Cell::recurrent, gate) ? tile : 0][column_tile][2 * upper + column];
    }

    /// The step of a lane's elements, whose inputs give way to their results.
    TILESMITH_DEVICE void step(const Tile& tile, const typename Product::Sums& sums, int t) {
        const Elements own = this->elements_of(tile);
        Number bias[gates][unit_groups];
        load_bias<Type, Cell>(bias, in.b, ~0u, own);
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                const int offset = this->block_offset(unit_group, column_tile);
                typename Inputs::Word wx[1][1][Inputs::words];
                Inputs::load(wx, this->planes + offset, this->lane);
                Number results[columns][arrays];
#pragma unroll
                for (int column = 0; column < columns; ++column) {
                    Number gate[gates], stepped[states];
#pragma unroll
                    for (int q = 0; q < gates; ++q) {
                        gate[q] = bias[q][unit_group];
                        if (has(Cell::input, q)) gate[q] += Inputs::value(wx[0][0], rank_among(Cell::input, q), column);
                        gate[q] += product_of(sums, q, unit_group, column_tile, column);
                    }
#pragma unroll
                    for (int s = 0; s < states; ++s) stepped[s] = state_of(tile, s, unit_group, column_tile, column);
                    const int row = this->row_of(own, column_tile, column);
                    step_element<Cell, Type, save>(gate, stepped, results[column], own, unit_group, this->own_of_rows.runs(row, t));
                    if (this->own_of_rows.begins_next(row))
#pragma unroll
                        for (int s = 0; s < states; ++s) stepped[s] = initial_state(own, s, unit_group, column_tile, column);
#pragma unroll
                    for (int s = 0; s < states; ++s) keep_state(stepped[s], tile, s, unit_group, column_tile, column);
                }
                sync_warp();  // all lanes have read the inputs of these elements
                results_to.store(
                    this->block_of_lane(), offset, [&](int array, int, int, int column) { return results[column][array]; },
                    [&](int array, int row, int unit) { return this->plane_at(array, row, unit); });
            }
    }

    TILESMITH_DEVICE void run() {
        results_to.prepare(this->block_of_lane(), this->lane, [&](int array, int row, int unit) { return this->plane_at(array, row, unit); });
        const Product& product = this->product;
        product.load_stationary(matrix_of(Tile(this->first_tile)));
        this->for_each_tile([&](const Tile& tile) { begin_tile(tile); });
        product.begin(matrix_of(Tile(this->first_tile)));
        const int most = this->most_steps(in);
        int t = 0;
        for (int number = this->first_tile; t < most;) {
            const Tile tile(opaque(number));
            const int steps = Base::in_turn ? this->steps_of(in, tile) : most;
            int next_t = t;
            do {
                number = this->next_tile(number);  // of this step, or the first of the next
                if (number == this->first_tile) ++next_t;
            } while (sequences.lengths && next_t < most && next_t >= this->steps_of(in, Tile(number)));
            this->own_of_rows.look_up(in, tile.first_row(), t, this->thread, threads);

            this->wait(counter_of(tile), t + 1);
            const Word* hidden = hidden_of(tile, t % 2);
            typename Product::Sums sums;
            product.multiply(
                sums, this->lane, this->unit_warp, this->row_warp, this->k_warp, matrix_of(tile),
                [&](SharedAddress to, int part) { this->load_columns(to, part, hidden); }, [&] { load_inputs(tile, t); });
            cp_async_wait<0>();
            sync_block();  // the inputs are there; the rings are read
            if (next_t < most) product.begin(matrix_of(Tile(opaque(number))));  // it need not wait for h
            product.collect(sums, this->lane, this->unit_warp, this->row_warp, this->k_warp);
            if (this->has_elements) step(tile, sums, t);
            sync_block();  // the results are there
            if (t + 1 < steps) {
                this->store_columns(tile, hidden_of(tile, (t + 1) % 2), [&](int, int row, int unit) {
                    if (this->own_of_rows.begins_next(row)) return initial_chunk(tile, row, unit);
                    return load_shared_128(this->plane_at(0, row, unit));
                });
                this->arrive(counter_of(tile));
            }
            write_results(tile, t);
            t = next_t;
        }
        this->for_each_tile([&](const Tile& tile) {
            end_tile(tile);
            if constexpr (sequences.lengths) write_rest(tile, this->steps_of(in, tile));
        });
    }
};

}  // namespace tilesmith
