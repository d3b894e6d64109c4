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
#include "grid_barrier.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "lane_stores.cuh"
#include "recurrence.cuh"
#include "streamed_product.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/streaming/forward.py states their constraints.
struct StreamingTiling {
    int units;           // of a tile, with all their gates
    int batch_tile;      // sequences of a tile
    int units_per_warp;  // 8: a 16-row tile holds two gates of 8 units; a multiple of 16: one gate of 16 units
    int rows_per_warp;   // sequences of a warp
    int part_k;          // previous units of a part of K
    int stationary;      // parts of R that stay in shared memory
    int num_stages;      // of the rings of R and h
    int blocks;          // that take the tiles in turn; 0: a block has one tile, and keeps what it needs of it
};

template <class Cell, class Type, FixedShape shape, StreamingTiling tiling, Save save, Stores how>
struct StreamingForward {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int states = Cell::states;
    static constexpr int gates = Cell::gates;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int width = vector_width(D);
    static constexpr bool in_turn = tiling.blocks != 0;

    static constexpr int units = tiling.units;
    static constexpr int rows = tiling.batch_tile;
    static constexpr int warp_units = tiling.units_per_warp;
    static constexpr int warp_rows = tiling.rows_per_warp;
    static constexpr int unit_warps = units / warp_units;
    static constexpr int row_warps = rows / warp_rows;
    static constexpr int unit_tiles = ceil_div(D, units);  // of a head
    static constexpr int part_k = tiling.part_k;
    static constexpr int parts = ceil_div(D, part_k);

    static constexpr int product_rows = ceil_div(recurrent_gates * warp_units, 16) * 16;  // of a warp
    static constexpr ProductTile product_tile{.rows = unit_warps * product_rows,
                                              .columns = rows,
                                              .row_warps = unit_warps,
                                              .column_warps = row_warps,
                                              .part_k = part_k,
                                              .parts = parts,
                                              .stationary = tiling.stationary,
                                              .num_stages = tiling.num_stages,
                                              .turned = false};
    using Product = StreamedProduct<Type, product_tile>;
    static constexpr int threads = Product::threads;

    using Elements = LaneElements<shape, warp_units, warp_rows, unit_tiles * units>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = 2;
    static constexpr int elements = unit_groups * column_tiles * columns;

    static_assert(recurrent_gates > 0, "a recurrent cell needs a recurrent product");
    static_assert(warp_units == 8 || warp_units % 16 == 0, "a warp has 8 units, or a multiple of 16");
    static_assert(units % warp_units == 0 && rows % warp_rows == 0 && warp_rows % 8 == 0, "whole warps a tile");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(!in_turn || tiling.stationary == 0, "what stays is of one tile");

    // ---- shared memory: the product's, then a plane for each array of inputs, which results replace ----
    static constexpr int arrays = result_arrays<Cell, save>;
    static constexpr int row_bytes = (units / chunk_elements<Type> | 1) * chunk_bytes;  // odd: no bank conflicts
    static constexpr int plane_bytes = rows * row_bytes;
    static constexpr int planes_at = Product::shared_bytes;
    static constexpr int shared_bytes = planes_at + maximum(input_gates, arrays) * plane_bytes;
    using Inputs = InputRing<Type, shape, input_gates, rows, threads, row_bytes, units>;  // to read them from there
    using Block = LaneElements<shape, 8, 8>;  // of a warp's, 8 units of 8 sequences
    using Stores = LaneStores<Type, shape, 8, 8, arrays, how>;

    // ---- h on its way: [slot][head][tile of the batch][part of K][sequence][part_k] ----
    static constexpr int tile_elements = parts * rows * part_k;
    static constexpr int sent_units = ceil_div(D, 8) * 8;  // what lies beyond is read as zeros

    // ---- the thread's place ----
    const ForwardArguments& in;
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int unit_warp = thread / 32 % unit_warps;
    const int row_warp = thread / 32 / unit_warps;
    const SharedAddress shared = shared_memory();
    const SharedAddress planes = shared + planes_at;
    const Product product{shared};
    const int batch_tiles = ceil_div(in.batch, rows);
    const int tiles = batch_tiles * shape.heads * unit_tiles;
    const int all_blocks = static_cast<int>(blocks_x());

    /// A tile of the work of a step.
    struct Tile {
        int number, unit_tile, head, batch_tile;
        TILESMITH_DEVICE explicit Tile(int number)
            : number(number), unit_tile(number % unit_tiles), head(number / unit_tiles % shape.heads),
              batch_tile(number / unit_tiles / shape.heads) {}
        TILESMITH_DEVICE int first_unit() const { return unit_tile * units; }
        TILESMITH_DEVICE int first_row() const { return batch_tile * rows; }
        /// Among those that need the same h.
        TILESMITH_DEVICE int group() const { return batch_tile * shape.heads + head; }
    };

    TILESMITH_DEVICE Elements elements_of(const Tile& tile) const {
        return {.batch = in.batch, .warp = tile.unit_tile * unit_warps + unit_warp, .head = tile.head,
                .first_row = tile.first_row() + row_warp * warp_rows, .g = lane / 4, .j = lane % 4};
    }
    TILESMITH_DEVICE unsigned short* hidden_of(const Tile& tile, int slot) const {
        return in.hidden + (static_cast<long long>(slot) * batch_tiles * shape.heads + tile.group()) * tile_elements;
    }
    TILESMITH_DEVICE unsigned* counter_of(const Tile& tile) const { return in.counters + tile.group() * GridBarrier::words; }

    // ---- registers that live from step to step, where a block has one tile ----
    float state[in_turn ? 1 : unit_groups][in_turn ? 1 : column_tiles][columns][states];
    Stores stores;

    // ---- copies ----

    /// Which row of R [G_rec, H, D] a row of the product is. Past the head's units it is that of its last: what comes of it is
    /// dropped.
    TILESMITH_DEVICE static int matrix_row(int head, int first_unit, int row) {
        const int of_warp = row % product_rows;
        const int gate = minimum(of_warp / warp_units, recurrent_gates - 1);
        const int unit = first_unit + row / product_rows * warp_units + of_warp % warp_units;
        return (gate * shape.heads + head) * D + minimum(unit, D - 1);
    }

    TILESMITH_DEVICE void load_matrix(int head, int first_unit, SharedAddress to, int part) const {
        constexpr int row_copies = part_k / width, copies = product_tile.rows * row_copies;
#pragma unroll
        for (int i = 0; i < ceil_div(copies, threads); ++i) {
            const int copy = thread + i * threads;
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

    static constexpr int column_chunks = part_k / chunk_elements<Type>;

    TILESMITH_DEVICE void load_hidden(SharedAddress to, int part, const unsigned short* hidden) const {
        constexpr int copies = rows * column_chunks;
#pragma unroll
        for (int i = 0; i < ceil_div(copies, threads); ++i) {
            const int copy = thread + i * threads;
            if (copies % threads != 0 && copy >= copies) continue;
            const int k = copy % column_chunks * chunk_elements<Type>;
            const bool real = sent_units % part_k == 0 || part * part_k + k < sent_units;
            copy_or_clear<Type, chunk_elements<Type>>(to + Product::ColumnRows::offset(copy / column_chunks, copy % column_chunks),
                                                      hidden + part * rows * part_k + copy * chunk_elements<Type>, real);
        }
    }

    /// What a thread's copies of rows of a tile's units in a plane are of.
    template <int arrays_copied, class Copy>
    TILESMITH_DEVICE void for_each_vector(Copy copy) const {
        constexpr int row_vectors = units / width, plane_vectors = rows * row_vectors;
#pragma unroll 2
        for (int vector = thread; vector < arrays_copied * plane_vectors; vector += threads) {
            const int array = vector / plane_vectors, row = vector / row_vectors % rows, unit = vector % row_vectors * width;
            copy(array, row, unit, planes + array * plane_bytes + row * row_bytes + unit * element_bytes<Type>);
        }
    }

    /// Ask for the inputs of a step. Past the batch and the head's units any will do.
    TILESMITH_DEVICE void load_inputs(const Tile& tile, int t) const {
        for_each_vector<input_gates>([&](int gate, int row, int unit, SharedAddress to) {
            const long long sequence = minimum(tile.first_row() + row, in.batch - 1);
            const int real_unit = minimum(tile.first_unit() + unit, D - width);
            const long long at = ((sequence * in.seq + t) * input_gates + gate) * shape.heads + tile.head;
            copy_or_clear<Type, width>(to, in.wx + at * D + real_unit, true);
        });
    }

    /// Write the results of a step, and the last h.
    TILESMITH_DEVICE void write_results(const Tile& tile, int t) const {
        if (t + 1 == in.seq)
            for_each_vector<1>([&](int, int row, int unit, SharedAddress from) {
                const long long sequence = tile.first_row() + row;
                const int real_unit = tile.first_unit() + unit;
                if (sequence < in.batch && real_unit < D)
                    copy_to_global<width * element_bytes<Type>>(in.last + (sequence * shape.heads + tile.head) * D + real_unit, from);
            });
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        for_each_vector<arrays>([&](int array, int row, int unit, SharedAddress from) {
            const long long sequence = tile.first_row() + row;
            const int real_unit = tile.first_unit() + unit;
            if (sequence >= in.batch || real_unit >= D) return;
            const long long at = ((sequence * in.seq + t) * shape.heads + tile.head) * D + real_unit;
            copy_to_global<width * element_bytes<Type>>(result_array<Cell, save>(in, array, array_elements) + at, from);
        });
    }

    /// Store 8 units of one sequence for the others, given value(row, unit) of the tile.
    template <class Value>
    TILESMITH_DEVICE void store_hidden(const Tile& tile, int slot, Value value) const {
        constexpr int row_chunks = units / chunk_elements<Type>;
        unsigned short* hidden = hidden_of(tile, slot);
        for (int chunk = thread; chunk < rows * row_chunks; chunk += threads) {
            const int row = chunk / row_chunks, unit = chunk % row_chunks * chunk_elements<Type>;
            const int k = tile.first_unit() + unit;
            if (Elements::padded && k >= sent_units) continue;
            store_global_128(hidden + (k / part_k * rows + row) * part_k + k % part_k, value(row, unit));
        }
    }

    // ---- states other than in registers ----

    TILESMITH_DEVICE float* carried_at(const Tile& tile, int s, int unit_group, int column_tile, int column) const {
        const int element = (unit_group * column_tiles + column_tile) * columns + column;
        return in.carried + ((static_cast<long long>(tile.number) * states + s) * elements + element) * threads + thread;
    }

    /// The states before the first step, of a lane's elements; h for all.
    TILESMITH_DEVICE void begin_tile(const Tile& tile) {
        const Elements own = elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                unsigned short word = 0;
                if (in.initial != nullptr && own.real(unit_group, column_tile, column))
                    word = load_global_16(in.initial + own.state_index(s, unit_group, column_tile, column));
                if constexpr (in_turn)
                    store_global_float(carried_at(tile, s, unit_group, column_tile, column), to_float<Type>(word));
                else
                    state[unit_group][column_tile][column][s] = to_float<Type>(word);
            }
        });
        store_hidden(tile, 0, [&](int row, int unit) {
            const long long sequence = tile.first_row() + row;
            const int first = tile.first_unit() + unit;
            if (in.initial == nullptr || sequence >= in.batch || first >= D) return uint4{0, 0, 0, 0};
            return load_row_of_8<width>(in.initial + (sequence * shape.heads + tile.head) * D + first, D - first);
        });
        GridBarrier::arrive(counter_of(tile));
    }

    /// Write the states but h after the last step.
    TILESMITH_DEVICE void end_tile(const Tile& tile) const {
        const Elements own = elements_of(tile);
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            if (!own.real(unit_group, column_tile, column)) return;
#pragma unroll
            for (int s = 1; s < states; ++s)
                store_global_16(in.last + own.state_index(s, unit_group, column_tile, column),
                                to_16<Type>(state_of(tile, s, unit_group, column_tile, column)));
        });
    }

    /// A state of an element before the step.
    TILESMITH_DEVICE float state_of(const Tile& tile, int s, int unit_group, int column_tile, int column) const {
        if constexpr (in_turn)
            return load_stored_float(carried_at(tile, s, unit_group, column_tile, column));
        else
            return state[unit_group][column_tile][column][s];
    }

    // ---- one step ----

    /// The product of a gate that has one.
    TILESMITH_DEVICE static float product_of(const typename Product::Sums& sums, int gate, int unit_group, int column_tile, int column) {
        if (!has(Cell::recurrent, gate)) return 0.0f;
        const int rank = rank_among(Cell::recurrent, gate);
        const int tile = warp_units == 8 ? rank / 2 : rank * (warp_units / 16) + unit_group / 2;
        const int upper = warp_units == 8 ? rank % 2 : unit_group % 2;
        return sums[has(Cell::recurrent, gate) ? tile : 0][column_tile][2 * upper + column];
    }

    /// Where 8 x 8 elements of a warp lie in the first plane.
    TILESMITH_DEVICE int block_offset(int unit_group, int column_tile) const {
        return (row_warp * warp_rows + 8 * column_tile) * row_bytes + (unit_warp * unit_groups + unit_group) * chunk_bytes;
    }

    /// The step of a lane's elements, whose inputs give way to their results.
    TILESMITH_DEVICE void step(const Tile& tile, const typename Product::Sums& sums) {
        const Elements own = elements_of(tile);
        float bias[gates][unit_groups];
        load_bias<Type, Cell>(bias, in.b, ~0u, own);
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                const int offset = block_offset(unit_group, column_tile);
                unsigned wx[1][1][Inputs::words];
                Inputs::load(wx, planes + offset, lane);
                float results[columns][arrays];
#pragma unroll
                for (int column = 0; column < columns; ++column) {
                    float gate[gates];
#pragma unroll
                    for (int q = 0; q < gates; ++q) {
                        gate[q] = bias[q][unit_group];
                        if (has(Cell::input, q)) gate[q] += Inputs::value(wx[0][0], rank_among(Cell::input, q), column);
                        gate[q] += product_of(sums, q, unit_group, column_tile, column);
                    }
                    float stepped[states];
#pragma unroll
                    for (int s = 0; s < states; ++s)
                        stepped[s] = state_of(tile, s, unit_group, column_tile, column);
                    step_element<Cell, Type, save>(gate, stepped, results[column], own, unit_group);
#pragma unroll
                    for (int s = 0; s < states; ++s) {
                        if constexpr (in_turn)
                            store_global_float(carried_at(tile, s, unit_group, column_tile, column), stepped[s]);
                        else
                            state[unit_group][column_tile][column][s] = stepped[s];
                    }
                }
                sync_warp();  // all lanes have read the inputs of these elements
                stores.store(
                    Block{.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4}, offset,
                    [&](int array, int, int, int column) { return results[column][array]; },
                    [&](int array, int row, int unit) { return result_at(array, row, unit); });
            }
    }

    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        return planes + array * plane_bytes + row * row_bytes + unit * element_bytes<Type>;
    }

    TILESMITH_DEVICE void run() {
        const int first = static_cast<int>(block_x());
        stores.prepare(Block{.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4}, lane,
                       [&](int array, int row, int unit) { return result_at(array, row, unit); });
        const auto matrix_of = [&](const Tile& tile) {
            return [this, head = tile.head, unit = tile.first_unit()](SharedAddress to, int part) { load_matrix(head, unit, to, part); };
        };
        product.load_stationary(matrix_of(Tile(first)));
        for (int number = first; number < tiles; number += all_blocks) begin_tile(Tile(number));
        product.begin(matrix_of(Tile(first)));
        int t = 0;
        for (int number = first; t < in.seq;) {
            const Tile tile(opaque(number));
            // The next of this step, or the first of the next one.
            number = in_turn && number + all_blocks < tiles ? number + all_blocks : first;
            const int next_t = number == first ? t + 1 : t;

            GridBarrier::wait(counter_of(tile), static_cast<unsigned>(unit_tiles) * (t + 1));
            const unsigned short* hidden = hidden_of(tile, t % 2);
            typename Product::Sums sums;
            product.multiply(
                sums, lane, unit_warp, row_warp, matrix_of(tile), [&](SharedAddress to, int part) { load_hidden(to, part, hidden); },
                [&] { load_inputs(tile, t); });
            cp_async_wait<0>();
            sync_block();  // the inputs are there; the rings are read
            if (next_t < in.seq) product.begin(matrix_of(Tile(opaque(number))));  // it need not wait for h
            step(tile, sums);
            sync_block();  // the results are there
            if (t + 1 < in.seq) {
                store_hidden(tile, (t + 1) % 2, [&](int row, int unit) { return load_shared_128(result_at(0, row, unit)); });
                GridBarrier::arrive(counter_of(tile));
            }
            write_results(tile, t);
            t = next_t;
        }
        for (int number = first; number < tiles; number += all_blocks) end_tile(Tile(number));
    }
};

}  // namespace tilesmith
