// The streaming schedule, backward: tiles and blocks as forward (streaming_block.cuh), from the last step to the first.
//
// A step of a tile begins with a product (streamed_product.cuh), whose rows are the tile's units, whose K is all gates of all
// units: R, turned, times the gradients of the gates of the step after, which the blocks store for each other in global memory.
// It is the gradient of h that the step after sends back. Then come the pointwise step of the lanes' elements, from what the
// forward pass has saved, the gates' gradients for the others and, when that has been said (grid_barrier.cuh), for the outputs.
// They have two slots, as h has forward.
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) units g and g + 8, sequences 2j and 2j + 1.
#pragma once

#include "gradient_step.cuh"
#include "lane_stores.cuh"
#include "streaming_block.cuh"

namespace tilesmith {

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, StreamingTiling tiling, int state_gradients, Stores how, Sequences sequences = Sequences{}>
struct StreamingBackward : StreamingBlock<Type, shape, tiling, tiling.units_per_warp, count_bits(Cell::recurrent), true,
                                          GradientArrays<Cell, state_gradients>::planes, sequences> {
    using Gradients = GradientArrays<Cell, state_gradients>;
    using Base =
        StreamingBlock<Type, shape, tiling, tiling.units_per_warp, count_bits(Cell::recurrent), true, Gradients::planes, sequences>;
    using typename Base::Elements;
    using typename Base::Product;
    using typename Base::Tile;
    using typename Base::Word;
    using typename Base::Number;
    static constexpr int D = Base::D, width = Base::width, rows = Base::rows, threads = Base::threads, part_k = Base::part_k;
    static constexpr int columns = Base::columns, unit_groups = Base::unit_groups, column_tiles = Base::column_tiles;
    static constexpr bool in_turn = Base::in_turn;

    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr unsigned stored = Gradients::stored;
    static constexpr int results = count_bits(stored);
    static constexpr int biases = count_bits(Gradients::inputless_biases);
    /// Of an element, from step to step: the gradients of its states, and its share of those of biases.
    static constexpr int kept = states + biases;
    /// And in global memory: those, where tiles are taken in turn, and what resets send to the initial states.
    static constexpr int kept_apart = (in_turn ? kept : 0) + (sequences.resets ? states : 0);
    static_assert(recurrent_gates > 0, "a recurrent cell needs a recurrent product");
    static_assert(state_gradients == 1 || state_gradients == states, "gradients of h alone, or of every state");
    static_assert(tiling.units_per_warp % 16 == 0, "a warp has whole tiles of 16 units");

    using Inputs = typename Base::template Planes<Gradients::arrays>;
    using Results = LaneStores<Type, shape, 8, 8, results, how>;

    const BackwardArgumentsOf<Word>& in;
    Results results_to;
    Number carried[in_turn ? 1 : unit_groups][in_turn ? 1 : column_tiles][columns][kept];  // where a block has one tile

    TILESMITH_DEVICE explicit StreamingBackward(const BackwardArgumentsOf<Word>& in) : Base{in.batch, sequences.lengths ? in.order : nullptr}, in(in) {}

    TILESMITH_DEVICE Word* gradients_of(const Tile& tile, int slot) const { return this->stored_of(in.d_gates, tile, slot); }
    TILESMITH_DEVICE unsigned* counter_of(const Tile& tile) const { return in.counters + tile.group() * GridBarrier::words; }

    // ---- copies ----

    /// Begin copying a part of R, whose rows here are k, of one gate. Columns past the head's units are others: what comes of
    /// them is dropped.
    TILESMITH_DEVICE void load_matrix(int head, int first_unit, SharedAddress to, int part) const {
        constexpr int row_copies = Base::units / width, copies = part_k * row_copies, chunk = chunk_elements<Type>;
        const long long gate_row = static_cast<long long>(part / Base::source_parts * shape.heads + head) * D;
        const int first = part % Base::source_parts * part_k;
#pragma unroll(unrolled(ceil_div(copies, threads)))
        for (int i = 0; i < ceil_div(copies, threads); ++i) {
            const int copy = this->thread + i * threads;
            if (copies % threads != 0 && copy >= copies) continue;
            const int k = copy / row_copies, unit = copy % row_copies * width;
            const bool real = D % part_k == 0 || first + k < D;
            copy_or_clear<Type, width>(to + Product::MatrixRows::offset(k, unit / chunk) + unit % chunk * element_bytes<Type>,
                                       in.r + (gate_row + (real ? first + k : 0)) * D + minimum(first_unit + unit, D - width), real);
        }
    }
    TILESMITH_DEVICE auto matrix_of(const Tile& tile) const {
        return [this, head = tile.head, unit = tile.first_unit()](SharedAddress to, int part) { load_matrix(head, unit, to, part); };
    }

    /// Ask for what a step reads: gates' sums, states before it, gradients from outside. Past the batch and the head's units
    /// any will do. Before step 0, and where a sequence begins anew, lie the initial states.
    TILESMITH_DEVICE void load_inputs(const Tile& tile, int t) const {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        this->template for_each_vector<Gradients::arrays>([&](int array, int row, int unit, SharedAddress to) {
            const long long sequence = this->sequence_of(tile, row);
            const int real_unit = minimum(tile.first_unit() + unit, D - width);
            const long long at = ((sequence * in.seq + t) * shape.heads + tile.head) * D + real_unit;
            const int state = array - Gradients::read_gates, gradient = state - Gradients::read_states;
            const Word* from;
            bool real = true;
            if (state < 0) {
                from = in.gates + array * array_elements + at;
            } else if (gradient >= 0) {
                from = in.d_states + gradient * array_elements + at;
            } else {
                const int s = nth_bit(Cell::backward_states, state);
                if (t > 0 && !this->own_of_rows.begins(row)) {
                    const Word* base = in.states + s * array_elements;
                    if (s > 0 && in.others != nullptr) base = in.others + (s - 1) * array_elements;
                    from = base + at - shape.heads * D;
                } else {
                    real = in.initial != nullptr;
                    from = in.initial + ((s * static_cast<long long>(in.batch) + sequence) * shape.heads + tile.head) * D + real_unit;
                }
            }
            copy_or_clear<Type, width>(to, from, real);
        });
    }

    /// Write the gradients of a step's gates: of those with an input, and of the others with a recurrent product.
    TILESMITH_DEVICE void write_results(const Tile& tile, int t) const {
        this->template for_each_vector<results>([&](int array, int row, int unit, SharedAddress from) {
            const int real_unit = tile.first_unit() + unit;
            if (tile.first_row() + row >= in.batch || real_unit >= D) return;
            copy_to_global<width * element_bytes<Type>>(result_at(tile, array, this->sequence_of(tile, row), t, real_unit), from);
        });
    }

    /// Where the gradient of a gate of a step goes.
    TILESMITH_DEVICE Word* result_at(const Tile& tile, int array, long long sequence, int t, int unit) const {
        constexpr int inputless = count_bits(Gradients::inputless_products);
        const int gate = nth_bit(stored, array);
        const bool input = inputless == 0 || has(Cell::input, gate);
        const long long step = sequence * in.seq + t;
        const long long at =
            input ? step * input_gates + rank_among(Cell::input, gate) : step * inputless + rank_among(Gradients::inputless_products, gate);
        return (input ? in.d_wx : in.d_inputless) + (at * shape.heads + tile.head) * D + unit;
    }

    /// Write zeros for the steps from `t` on.
    TILESMITH_DEVICE void write_rest(const Tile& tile, int t) const {
        for (; t < in.seq; ++t)
            this->template for_each_vector<results>([&](int array, int row, int unit, SharedAddress) {
                const int place = tile.first_row() + row, real_unit = tile.first_unit() + unit;
                if (place >= in.batch || real_unit >= D) return;
                zero_global<width * element_bytes<Type>>(result_at(tile, array, this->sequence_of_place(place), t, real_unit));
            });
    }

    // ---- gradients from step to step ----

    TILESMITH_DEVICE Number* kept_at(const Tile& tile, int number, int unit_group, int column_tile, int column) const {
        return this->carried_at(in.d_carried, tile, kept_apart, number, unit_group, column_tile, column);
    }
    /// What resets send to an initial state.
    TILESMITH_DEVICE Number* to_initial(const Tile& tile, int s, int unit_group, int column_tile, int column) const {
        return kept_at(tile, (in_turn ? kept : 0) + s, unit_group, column_tile, column);
    }
    TILESMITH_DEVICE Number kept_of(const Tile& tile, int number, int unit_group, int column_tile, int column) const {
        if constexpr (in_turn)
            return load_stored(kept_at(tile, number, unit_group, column_tile, column));
        else
            return carried[unit_group][column_tile][column][number];
    }
    TILESMITH_DEVICE void keep(Number value, const Tile& tile, int number, int unit_group, int column_tile, int column) {
        if constexpr (in_turn)
            store_element(kept_at(tile, number, unit_group, column_tile, column), value);
        else
            carried[unit_group][column_tile][column][number] = value;
    }

    /// The gradients of the states after the last step.
    TILESMITH_DEVICE void begin_tile(const Tile& tile) {
        const Elements own = this->elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int number = 0; number < kept; ++number) {
                Word word = 0;
                if (number < states && in.d_last != nullptr && own.real(unit_group, column_tile, column))
                    word = load_element(in.d_last + own.state_index(number, unit_group, column_tile, column));
                keep(to_real<Type>(word), tile, number, unit_group, column_tile, column);
            }
            if constexpr (sequences.resets)
#pragma unroll
                for (int s = 0; s < states; ++s) store_element(to_initial(tile, s, unit_group, column_tile, column), 0.0f);
        });
    }

    /// The gradients of the states before the first step, from what that has sent back; and of biases, a part for each warp
    /// along the batch.
    TILESMITH_DEVICE void end_tile(const Tile& tile, const typename Product::Sums& sums) const {
        if (!this->has_elements) return;
        const Elements own = this->elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = 0; s < states; ++s) {
                Number gradient = kept_of(tile, s, unit_group, column_tile, column);
                if (s == 0) gradient += sums[unit_group / 2][column_tile][unit_group % 2 * 2 + column];
                if constexpr (sequences.resets)
                    gradient += load_stored(to_initial(tile, s, unit_group, column_tile, column));
                store_element(in.d_initial + own.state_index(s, unit_group, column_tile, column), to_element<Type>(gradient));
            }
        });
#pragma unroll
        for (int bias = 0; bias < biases; ++bias)
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group) {
                Number sum = 0.0f;
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                    for (int column = 0; column < columns; ++column)
                        sum += kept_of(tile, states + bias, unit_group, column_tile, column);
                sum += shuffle_xor(sum, 1);  // the lanes that have the same unit
                sum += shuffle_xor(sum, 2);
                const long long part = tile.batch_tile * Base::row_warps + this->row_warp;
                if (own.j == 0 && own.unit(unit_group) < D)
                    store_element(in.d_b_partial + ((part * biases + bias) * shape.heads + tile.head) * D + own.unit(unit_group), sum);
            }
    }

    // ---- one step ----

    /// The step of a lane's elements, whose inputs give way to the gradients of their gates. last: of the tile.
    TILESMITH_DEVICE void step(const Tile& tile, const typename Product::Sums& sums, int t, bool last) {
        const Elements own = this->elements_of(tile);
        Number bias[gates][unit_groups];
        load_bias<Type, Cell>(bias, in.b, Cell::backward_gates & ~Cell::saved, own);
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                const int offset = this->block_offset(unit_group, column_tile);
                typename Inputs::Word words[1][1][Inputs::words];
                Inputs::load(words, this->planes + offset, this->lane);
                Number made[columns][results];
#pragma unroll
                for (int column = 0; column < columns; ++column) {
                    const Number sent_back = sums[unit_group / 2][column_tile][unit_group % 2 * 2 + column];
                    step_of(tile, own, words[0][0], bias, sent_back, unit_group, column_tile, column, t, last, made[column]);
                }
                sync_warp();  // all lanes have read the inputs of these elements
                results_to.store(
                    this->block_of_lane(), offset, [&](int array, int, int, int column) { return made[column][array]; },
                    [&](int array, int row, int unit) { return this->plane_at(array, row, unit); });
            }
    }

    /// The step of one element.
    TILESMITH_DEVICE void step_of(const Tile& tile, const Elements& own, const typename Inputs::Word (&words)[Inputs::words],
                                  const Number (&bias)[gates][unit_groups], Number sent_back, int unit_group, int column_tile,
                                  int column, int t, bool last, Number (&made)[results]) {
        const int row = this->row_of(own, column_tile, column);
        const bool runs = this->own_of_rows.runs(row, t);
        if (sequences.lengths) last = last || !this->own_of_rows.runs(row, t + 1);
        Number of_element[states], d_gate[gates];
#pragma unroll
        for (int s = 0; s < states; ++s) {
            of_element[s] = kept_of(tile, s, unit_group, column_tile, column);
            if (this->own_of_rows.begins_next(row)) {  // what comes back is the initial states'
                Number* sum = to_initial(tile, s, unit_group, column_tile, column);
                store_element(sum, load_stored(sum) + of_element[s] + (s == 0 ? sent_back : 0.0f));
                of_element[s] = 0.0f;
            } else if (s == 0 && !last) {
                of_element[0] = Cell::recurrent_gradient(of_element[0] + sent_back);
            }
        }
        const auto value = [&](int array) { return Inputs::value(words, array, column); };
        typename Cell::Ready ready;
        prepare_gradient<Cell, Type, state_gradients>(value, [&](int q) { return bias[q][unit_group]; }, ready);
        finish_gradient<Cell, Type, state_gradients>(
            ready, [&](int s) { return value(Gradients::read_gates + Gradients::read_states + s); }, runs, of_element, d_gate);
#pragma unroll
        for (int s = 0; s < states; ++s) keep(of_element[s], tile, s, unit_group, column_tile, column);
        const bool real = own.real(unit_group, column_tile, column);
#pragma unroll
        for (int q = 0; q < gates; ++q) {
            // Padding must stay finite: zeros multiply it.
            if (has(stored, q))
                made[has(stored, q) ? rank_among(stored, q) : 0] = Elements::padded && own.unit(unit_group) >= D ? 0.0f : d_gate[q];
            if (!has(Gradients::inputless_biases, q)) continue;
            const int number = states + rank_among(Gradients::inputless_biases, q);
            keep(kept_of(tile, number, unit_group, column_tile, column) + (real ? d_gate[q] : 0.0f), tile, number, unit_group,
                 column_tile, column);
        }
    }

    /// Of the gates with a recurrent product, the plane of one's gradient.
    TILESMITH_DEVICE static int plane_of(int source) { return rank_among(stored, nth_bit(Cell::recurrent, source)); }

    TILESMITH_DEVICE void run() {
        results_to.prepare(this->block_of_lane(), this->lane, [&](int array, int row, int unit) { return this->plane_at(array, row, unit); });
        const Product& product = this->product;
        constexpr bool multiplies = !Cell::recurrent_cut;
        if (multiplies) product.load_stationary(matrix_of(Tile(this->first_tile)));
        this->for_each_tile([&](const Tile& tile) { begin_tile(tile); });
        if (multiplies) product.begin(matrix_of(Tile(this->first_tile)));
        const int most = this->most_steps(in);
        int n = 0;  // steps that are done; after the last comes one more product, for the initial states
        for (int number = this->first_tile; n <= most;) {
            const Tile tile(opaque(number));
            const int t = (in_turn ? this->steps_of(in, tile) : most) - 1 - n;
            int next_n = n;
            do {
                number = this->next_tile(number);  // of this step, or the first of the next
                if (number == this->first_tile) ++next_n;
            } while (sequences.lengths && next_n <= most && next_n > this->steps_of(in, Tile(number)));
            this->own_of_rows.look_up(in, tile.first_row(), t, this->thread, threads);
            const auto inputs = [&] {
                if (t >= 0) load_inputs(tile, t);
            };

            typename Product::Sums sums{};
            if (multiplies && n > 0) {
                this->wait(counter_of(tile), n);
                const Word* gradients = gradients_of(tile, (n - 1) % 2);
                product.multiply(
                    sums, this->lane, this->unit_warp, this->row_warp, this->k_warp, matrix_of(tile),
                    [&](SharedAddress to, int part) { this->load_columns(to, part, gradients); }, inputs);
            } else {
                if (Base::Own::any) sync_block();
                inputs();  // in the place of results that the same threads have written out
                cp_async_commit();
            }
            cp_async_wait<0>();
            sync_block();  // the inputs are there; the rings are read
            if (multiplies && n > 0 && next_n <= most) product.begin(matrix_of(Tile(opaque(number))));  // it need not wait
            if (multiplies && n > 0) product.collect(sums, this->lane, this->unit_warp, this->row_warp, this->k_warp);
            if (t < 0) {
                end_tile(tile, sums);
                if constexpr (sequences.lengths) write_rest(tile, n);
            } else {
                if (this->has_elements) step(tile, sums, t, n == 0);
                sync_block();  // the results are there
                if (multiplies) {
                    this->store_columns(tile, gradients_of(tile, n % 2), [&](int source, int row, int unit) {
                        return load_shared_128(this->plane_at(plane_of(source), row, unit));
                    });
                    this->arrive(counter_of(tile));
                }
                write_results(tile, t);
            }
            n = next_n;
        }
    }
};

}  // namespace tilesmith
