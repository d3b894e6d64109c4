// What the passes of the streaming schedule share: the tiles of a step's work and who has which, the product that makes one, the
// planes in shared memory through which inputs come and results go, and what blocks store for each other in global memory.
//
// Lanes: g = lane / 4, j = lane % 4.
#pragma once

#include "grid_barrier.cuh"
#include "input_ring.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"
#include "streamed_product.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/streaming/ states their constraints.
struct StreamingTiling {
    int units;           // of a tile, with all their gates
    int batch_tile;      // sequences of a tile
    int units_per_warp;  // forward 8: a 16-row tile holds two gates of 8 units; else a multiple of 16
    int rows_per_warp;   // sequences of a warp
    int part_k;          // of a part of K
    int stationary;      // parts of the matrix that stay in shared memory
    int num_stages;      // of the rings of the matrix and of what it multiplies
    int blocks;          // that take the tiles in turn; 0: a block has one tile, and keeps what it needs of it
    int k_warps = 1;     // that share the units and sequences of one: each has some k of every part, and the first the elements
};

/// Reads a lane's elements of several planes of floats or doubles, of 8 units and 8 sequences: as InputRing does those of 16
/// bits.
template <class Type, int planes, int plane_bytes, int row_bytes>
struct ElementPlanes {
    static constexpr int words = 2 * planes;
    using Word = Real<Type>;

    TILESMITH_DEVICE static void load(Word (&out)[1][1][words], SharedAddress at, int lane) {
        const SharedAddress own = at + lane % 4 * 2 * row_bytes + lane / 4 * element_bytes<Type>;
#pragma unroll
        for (int plane = 0; plane < planes; ++plane)
#pragma unroll
            for (int column = 0; column < 2; ++column)
                out[0][0][2 * plane + column] = load_shared_element<Type>(own + plane * plane_bytes + column * row_bytes);
    }
    TILESMITH_DEVICE static Word value(const Word (&in)[words], int plane, int column) { return in[2 * plane + column]; }
};

/// warp_rows: rows of the product that a warp makes, in tiles of 16. sources: vectors of D units that K is made of: 1 (h), or
/// the gradients of so many gates. turned: see ProductTile. planes: in shared memory.
template <class Type, FixedShape shape, StreamingTiling tiling, int product_rows, int sources, bool turned, int planes_needed,
          Sequences sequences = Sequences{}>
struct StreamingBlock {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int width = widest_vector<Type>(D);
    static constexpr bool in_turn = tiling.blocks != 0;
    static constexpr int units = tiling.units;
    static constexpr int rows = tiling.batch_tile;
    static constexpr int warp_units = tiling.units_per_warp;
    static constexpr int warp_rows = tiling.rows_per_warp;
    static constexpr int unit_warps = units / warp_units;
    static constexpr int row_warps = rows / warp_rows;
    static constexpr int unit_tiles = ceil_div(D, units);  // of a head
    static constexpr int part_k = tiling.part_k;
    static constexpr int source_parts = ceil_div(D, part_k);
    static constexpr int parts = sources * source_parts;

    static constexpr ProductTile product_tile{.rows = unit_warps * product_rows,
                                              .columns = rows,
                                              .row_warps = unit_warps,
                                              .column_warps = row_warps,
                                              .part_k = part_k,
                                              .parts = parts,
                                              .stationary = tiling.stationary,
                                              .num_stages = tiling.num_stages,
                                              .turned = turned,
                                              .k_warps = tiling.k_warps};
    using Product = StreamedProduct<Type, product_tile>;
    static constexpr int threads = Product::threads;
    using Word = Element<Type>;
    using Number = Real<Type>;

    using Elements = LaneElements<shape, warp_units, warp_rows, unit_tiles * units, sequences.lengths>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = 2;
    static constexpr int elements = unit_groups * column_tiles * columns;

    static_assert(warp_units == 8 || warp_units % 16 == 0, "a warp has 8 units, or a multiple of 16");
    static_assert(units % warp_units == 0 && rows % warp_rows == 0 && warp_rows % 8 == 0, "whole warps a tile");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(!in_turn || tiling.stationary == 0, "what stays is of one tile");
    static_assert(!in_turn || tiling.k_warps == 1, "where tiles are taken in turn every warp has elements");

    // ---- shared memory: the product's, then a plane for each array of inputs, which results replace ----
    static constexpr int row_bytes = (units / chunk_elements<Type> | 1) * chunk_bytes;  // odd: no bank conflicts
    static constexpr int plane_bytes = rows * row_bytes;
    static constexpr int planes_at = Product::shared_bytes;
    static constexpr int own_at = planes_at + planes_needed * plane_bytes;
    using Own = StepSequences<sequences, rows>;
    static constexpr int shared_bytes = own_at + Own::bytes;
    using Block = LaneElements<shape, 8, 8>;  // of a warp's, 8 units of 8 sequences
    /// How a lane reads its elements of so many planes.
    template <int count>
    using Planes = typename Either<element_bytes<Type> == 2, InputRing<Type, shape, count, rows, threads, row_bytes, units>,
                                   ElementPlanes<Type, count, plane_bytes, row_bytes>>::Type;

    /// Whether a block has all units of a head: what it stores it alone reads, and it waits for nobody.
    static constexpr bool whole_head = unit_tiles == 1;

    // ---- what blocks store for each other: [slot][tile of the batch][head][part of K][sequence][part_k] ----
    static constexpr int tile_elements = parts * rows * part_k;
    static constexpr int sent_units = ceil_div(D, chunk_elements<Type>) * chunk_elements<Type>;  // beyond lie zeros

    // ---- the thread's place ----
    const int batch;
    const int* const order;  // as LaneElements has it
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int unit_warp = thread / 32 % unit_warps;
    const int row_warp = tiling.k_warps == 1 ? thread / 32 / unit_warps : thread / 32 / unit_warps % row_warps;
    const int k_warp = tiling.k_warps == 1 ? 0 : thread / Product::tile_threads;
    const bool has_elements = k_warp == 0;  // the warp, in the end
    const SharedAddress shared = shared_memory();
    const SharedAddress planes = shared + planes_at;
    const Product product{shared};
    Own own_of_rows{shared + own_at};  // of the tile and step that are run
    const int batch_tiles = ceil_div(batch, rows);
    const int tiles = batch_tiles * shape.heads * unit_tiles;
    const int first_tile = static_cast<int>(block_x());
    const int blocks = static_cast<int>(blocks_x());

    /// A tile of the work of a step.
    struct Tile {
        int number, unit_tile, head, batch_tile;
        TILESMITH_DEVICE explicit Tile(int number)
            : number(number), unit_tile(number % unit_tiles), head(number / unit_tiles % shape.heads),
              batch_tile(number / unit_tiles / shape.heads) {}
        TILESMITH_DEVICE int first_unit() const { return unit_tile * units; }
        TILESMITH_DEVICE int first_row() const { return batch_tile * rows; }
        /// Among those that multiply the same.
        TILESMITH_DEVICE int group() const { return batch_tile * shape.heads + head; }
    };

    /// The tile of this block after one; the first again after the last.
    TILESMITH_DEVICE int next_tile(int number) const {
        return in_turn && number + blocks < tiles ? number + blocks : first_tile;
    }
    /// Calls function(tile) for every tile of this block.
    template <class Function>
    TILESMITH_DEVICE void for_each_tile(Function function) const {
        for (int number = first_tile; number < tiles; number += blocks) function(Tile(number));
    }

    /// How many steps a tile runs; and the most of this block's.
    template <class Arguments>
    TILESMITH_DEVICE int steps_of(const Arguments& in, const Tile& tile) const {
        return longest<sequences>(in, tile.first_row(), rows, lane);
    }
    template <class Arguments>
    TILESMITH_DEVICE int most_steps(const Arguments& in) const {
        if constexpr (!sequences.lengths) return in.seq;
        int most = 1;
        for_each_tile([&](const Tile& tile) { most = maximum(most, steps_of(in, tile)); });
        return most;
    }

    /// The sequence of a row of the tile that is run; past the batch any will do.
    TILESMITH_DEVICE int sequence_of(const Tile& tile, int row) const {
        if constexpr (Own::any)
            return own_of_rows.number(row);
        else
            return minimum(tile.first_row() + row, batch - 1);
    }
    /// Of any tile.
    TILESMITH_DEVICE int sequence_of_place(int place) const {
        return order == nullptr || place >= batch ? place : static_cast<int>(load_global_32(order + place));
    }
    TILESMITH_DEVICE int row_of(const Elements& own, int column_tile, int column) const {
        return row_warp * warp_rows + own.row(column_tile, column);
    }

    TILESMITH_DEVICE Elements elements_of(const Tile& tile) const {
        return {.batch = batch, .warp = tile.unit_tile * unit_warps + unit_warp, .head = tile.head,
                .first_row = tile.first_row() + row_warp * warp_rows, .g = lane / 4, .j = lane % 4, .order = order};
    }
    TILESMITH_DEVICE Block block_of_lane() const {
        return {.batch = 0, .warp = 0, .head = 0, .first_row = 0, .g = lane / 4, .j = lane % 4};
    }

    // ---- planes ----

    TILESMITH_DEVICE SharedAddress plane_at(int plane, int row, int unit) const {
        return planes + plane * plane_bytes + row * row_bytes + unit * element_bytes<Type>;
    }
    /// Where 8 x 8 elements of a warp lie in the first plane.
    TILESMITH_DEVICE int block_offset(int unit_group, int column_tile) const {
        return (row_warp * warp_rows + 8 * column_tile) * row_bytes + (unit_warp * unit_groups + unit_group) * 8 * element_bytes<Type>;
    }
    /// The calling thread's share of the vectors of `count` planes: function(plane, row, unit, place).
    template <int count, class Function>
    TILESMITH_DEVICE void for_each_vector(Function function) const {
        constexpr int row_vectors = units / width, plane_vectors = rows * row_vectors;
#pragma unroll 2
        for (int vector = thread; vector < count * plane_vectors; vector += threads) {
            const int plane = vector / plane_vectors, row = vector / row_vectors % rows, unit = vector % row_vectors * width;
            function(plane, row, unit, plane_at(plane, row, unit));
        }
    }

    // ---- what blocks store for each other ----

    TILESMITH_DEVICE Word* stored_of(Word* stored, const Tile& tile, int slot) const {
        return stored + (static_cast<long long>(slot) * batch_tiles * shape.heads + tile.group()) * tile_elements;
    }

    /// The calling block has stored its part of what a group shares.
    TILESMITH_DEVICE void arrive(unsigned* counter) const {
        if constexpr (!whole_head) GridBarrier::arrive(counter);
    }
    /// The block meets when all of a group have stored theirs so often since the launch began.
    TILESMITH_DEVICE void wait(const unsigned* counter, int times) const {
        if constexpr (whole_head)
            sync_block();  // all have stored
        else
            GridBarrier::wait(counter, static_cast<unsigned>(unit_tiles) * times);
    }

    /// Begin copying a part of what the matrix multiplies.
    TILESMITH_DEVICE void load_columns(SharedAddress to, int part, const Word* stored) const {
        constexpr int row_chunks = part_k / chunk_elements<Type>, copies = rows * row_chunks;
#pragma unroll(unrolled(ceil_div(copies, threads)))
        for (int i = 0; i < ceil_div(copies, threads); ++i) {
            const int copy = thread + i * threads;
            if (copies % threads != 0 && copy >= copies) continue;
            const int k = copy % row_chunks * chunk_elements<Type>;
            const bool real = sent_units % part_k == 0 || part % source_parts * part_k + k < sent_units;
            copy_or_clear<Type, chunk_elements<Type>>(to + Product::ColumnRows::offset(copy / row_chunks, copy % row_chunks),
                                                      stored + part * rows * part_k + copy * chunk_elements<Type>, real);
        }
    }

    /// Store a tile's units of all sequences, value(source, row, unit) of 16 bytes each.
    template <class Value>
    TILESMITH_DEVICE void store_columns(const Tile& tile, Word* stored, Value value) const {
        constexpr int row_chunks = units / chunk_elements<Type>;
        for (int chunk = thread; chunk < sources * rows * row_chunks; chunk += threads) {
            const int source = chunk / (rows * row_chunks), row = chunk / row_chunks % rows;
            const int unit = chunk % row_chunks * chunk_elements<Type>;
            const int k = tile.first_unit() + unit;
            if (Elements::padded && k >= sent_units) continue;
            const int part = source * source_parts + k / part_k;
            store_global_128(stored + (part * rows + row) * part_k + k % part_k, value(source, row, unit));
        }
    }

    /// Of `of_element` numbers that each element of a tile has from step to step, where they are not in registers.
    TILESMITH_DEVICE Real<Type>* carried_at(Real<Type>* carried, const Tile& tile, int of_element, int number, int unit_group, int column_tile,
                                       int column) const {
        const int element = (unit_group * column_tiles + column_tile) * columns + column;
        return carried + ((static_cast<long long>(tile.number) * of_element + number) * elements + element) * threads + thread;
    }
};

}  // namespace tilesmith
