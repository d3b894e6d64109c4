// A product of two matrices whose parts of K come through rings in shared memory, one after another: of a tile of rows of a
// matrix that stays the same from step to step, and of columns that are new in every step.
//
// Parts of the matrix that there is room for stay in shared memory. Of those that do not the first may be on their way before
// the columns are known. All copies are asynchronous; how they are made is the caller's business.
//
// Lanes: g = lane / 4, j = lane % 4. A tile of 16 rows and 8 columns gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "elements.cuh"
#include "factors.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// Rows of `chunks` 16-byte chunks in shared memory, permuted within a row so that the same chunk of 8 rows in a row lies in
/// different banks.
template <int chunks>
struct SwizzledRows {
    static_assert(chunks > 0 && (chunks & (chunks - 1)) == 0, "rows of a power of two of chunks");
    static constexpr int row_bytes = chunks * chunk_bytes;

    /// What the number of a chunk of a row is combined with.
    TILESMITH_DEVICE static constexpr unsigned turn(unsigned row) {
        return chunks >= 8 ? row % 8 : row / (8 / minimum(chunks, 8)) % minimum(chunks, 8);
    }
    TILESMITH_DEVICE static constexpr int offset(unsigned row, unsigned chunk) {
        return static_cast<int>(row * row_bytes + (chunk ^ turn(row)) * chunk_bytes);
    }
};

/// The same where lanes read single elements, of the same two chunks of 4 rows in a row: of a matrix of 4-byte elements that lies
/// turned, and of doubles. Rows 4 apart are permuted alike.
template <int chunks>
struct SwizzledWords {
    static_assert(chunks >= 4 && (chunks & (chunks - 1)) == 0, "rows of a power of two of chunks, at least 4");
    static constexpr int row_bytes = chunks * chunk_bytes;

    TILESMITH_DEVICE static constexpr unsigned turn(unsigned row) { return row % 4 / (8 / minimum(chunks, 8)) * 2; }
    TILESMITH_DEVICE static constexpr int offset(unsigned row, unsigned chunk) {
        return static_cast<int>(row * row_bytes + (chunk ^ turn(row)) * chunk_bytes);
    }
};

/// What a warp multiplies: `tiles` of 16 rows by `column_tiles` of 8 columns, of `k` at a time, from rows in shared memory.
/// The matrix lies as [row][k], or, where it is turned, as [k][row]; the columns as [column][k]. Where `k` is a part of what
/// lies there, each of several warps takes another.
template <class Type, int tiles, int column_tiles, int k, class MatrixRows, class ColumnRows, bool turned>
struct WarpProduct {
    static constexpr int depth = product_depth<Type>;  // of an instruction: two chunks
    static_assert(k % depth == 0, "whole instructions");

    using Sums = Real<Type>[tiles][column_tiles][4];
    /// Where a warp has few tiles, each has several accumulators, so that matrix instructions need not wait for each other.
    static constexpr int independent = 8;
    static constexpr int accumulators =
        sums_in_tensor_cores<Type> ? maximum(1, minimum(k / depth, independent / (tiles * column_tiles))) : 1;
    using Partial = Real<Type>[accumulators][tiles][column_tiles][4];
    /// Instructions along k that are written out in a row: of floats no more than it takes, since each has many registers.
    static constexpr int written_out =
        sums_in_tensor_cores<Type> ? k / depth : minimum(k / depth, maximum(2, independent / (tiles * column_tiles)));

    TILESMITH_DEVICE static void clear(Partial& partial) {
        for_each([&](int tile, int column_tile, int i) {
#pragma unroll
            for (int accumulator = 0; accumulator < accumulators; ++accumulator) partial[accumulator][tile][column_tile][i] = 0;
        });
    }
    TILESMITH_DEVICE static void sum(Sums& sums, const Partial& partial) {
        for_each([&](int tile, int column_tile, int i) {
            Real<Type> total = partial[0][tile][column_tile][i];
#pragma unroll
            for (int accumulator = 1; accumulator < accumulators; ++accumulator) total += partial[accumulator][tile][column_tile][i];
            sums[tile][column_tile][i] = total;
        });
    }
    template <class Function>
    TILESMITH_DEVICE static void for_each(Function function) {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) function(tile, column_tile, i);
    }

    /// A turned matrix of floats is read by words: ldmatrix turns 16-bit ones.
    static constexpr bool by_words = turned && element_bytes<Type> == 4;

    /// Add the product of one part of K. matrix, columns: where the warp's first row and first column lie, both multiples of
    /// 8 rows away from where the rows are counted from; a turned matrix begins at its row 0 and chunk 0, and the warp's rows
    /// at `first_chunk`. k_warp: which part of k is the warp's.
    TILESMITH_DEVICE static void add(Partial& partial, SharedAddress matrix, int first_chunk, SharedAddress columns, int lane,
                                     int k_warp) {
        if constexpr (element_bytes<Type> == 8) return add_doubles(partial[0], matrix, first_chunk, columns, lane, k_warp);
        const unsigned l = static_cast<unsigned>(lane), first_step = static_cast<unsigned>(k_warp * (k / depth));
        const unsigned row = by_words ? l % 4 : turned ? l / 16 * 8 + l % 8 : l % 16;
        const unsigned matrix_chunk = (by_words ? l / 16 : turned ? l / 8 % 2 : l / 16 ^ 2u * first_step) ^ MatrixRows::turn(row);
        const unsigned column = l / 16 * 8 + l % 8;
        const unsigned column_chunk = l / 8 % 2 ^ ColumnRows::turn(column) ^ 2u * first_step;
        const SharedAddress from_matrix = matrix + (row + (turned ? depth * first_step : 0)) * MatrixRows::row_bytes;
        const SharedAddress from_columns = columns + (column_tiles == 1 ? l % 8 : column) * ColumnRows::row_bytes;
#pragma unroll(written_out)
        for (int step = 0; step < k / depth; ++step) {
            Factors<Type, 2> b[column_tiles];
            const SharedAddress at = from_columns + (column_chunk ^ 2u * step) * chunk_bytes;
#pragma unroll
            for (int tile = 0; tile < column_tiles; tile += 2) {
                const SharedAddress row_at = at + 8 * tile * ColumnRows::row_bytes;
                if constexpr (column_tiles == 1) {
                    unsigned words[2];
                    ldmatrix_x2(words, row_at);
                    b[tile].set(0, words[0]), b[tile].set(1, words[1]);
                } else {
                    unsigned words[4];
                    ldmatrix_x4(words, row_at);
                    b[tile].set(0, words[0]), b[tile].set(1, words[1]);
                    b[tile + 1].set(0, words[2]), b[tile + 1].set(1, words[3]);
                }
            }
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) {
                unsigned words[4];
                if constexpr (by_words) {
#pragma unroll
                    for (int i = 0; i < 4; ++i)  // rows g and g + 8 of k = j, then of k = j + 4
                        words[i] = load_shared_32(
                            from_matrix + (depth * step + i / 2 * 4) * MatrixRows::row_bytes +
                            (matrix_chunk ^ static_cast<unsigned>(first_chunk + 4 * tile + i % 2 * 2)) * chunk_bytes + l / 4 % 4 * 4);
                } else if constexpr (turned) {
                    ldmatrix_x4_trans(words, from_matrix + depth * step * MatrixRows::row_bytes +
                                                 (matrix_chunk ^ static_cast<unsigned>(first_chunk + 2 * tile)) * chunk_bytes);
                } else {
                    ldmatrix_x4(words, from_matrix + 16 * tile * MatrixRows::row_bytes + (matrix_chunk ^ 2u * step) * chunk_bytes);
                }
                Factors<Type, 4> a;
#pragma unroll
                for (int i = 0; i < 4; ++i) a.set(i, words[i]);
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                    multiply_add(partial[step % accumulators][tile][column_tile], a, b[column_tile]);
            }
        }
    }

    /// The same of doubles, which lanes read one by one.
    TILESMITH_DEVICE static void add_doubles(Sums& sums, SharedAddress matrix, int first_chunk, SharedAddress columns, int lane,
                                             int k_warp) {
        const int g = lane / 4, j = lane % 4;
#pragma unroll 2
        for (int step = k_warp * (k / depth); step < (k_warp + 1) * (k / depth); ++step) {
            const int own_k = depth * step + j;
            Factors<Type, 2> b[column_tiles];
#pragma unroll
            for (int tile = 0; tile < column_tiles; ++tile)
                b[tile].set(0, load_shared_double(columns + ColumnRows::offset(8 * tile + g, own_k / 2) + own_k % 2 * 8));
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) {
                Factors<Type, 4> a;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int row = 16 * tile + 8 * i + g;
                    const int at = turned ? MatrixRows::offset(own_k, first_chunk + row / 2) + row % 2 * 8
                                          : MatrixRows::offset(row, own_k / 2) + own_k % 2 * 8;
                    a.set(i, load_shared_double(matrix + at));
                }
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                    multiply_add(sums[tile][column_tile], a, b[column_tile]);
            }
        }
    }
};

/// A tile of a product: `rows` by `columns`, shared out to row_warps x column_warps x k_warps warps. K comes in `parts` of `part_k`, of
/// which the first `stationary` of the matrix stay in shared memory; the others, and the columns, come through rings of
/// `num_stages`.
struct ProductTile {
    int rows;
    int columns;
    int row_warps;
    int column_warps;
    int part_k;
    int parts;
    int stationary;
    int num_stages;
    bool turned;  // the matrix lies as [k][row]
    int k_warps;  // that share a part of the tile: each has some k of every part
};

template <class Type, ProductTile p>
struct StreamedProduct {
    static constexpr int tile_threads = 32 * p.row_warps * p.column_warps;  // that end up with sums
    static constexpr int threads = tile_threads * p.k_warps;
    static constexpr int tiles = p.rows / p.row_warps / 16;               // of a warp
    static constexpr int column_tiles = p.columns / p.column_warps / 8;  // of a warp
    static constexpr int lookahead = p.num_stages - 1;
    static constexpr bool streams = p.stationary < p.parts;  // the matrix, or part of it
    static_assert(p.rows == tiles * 16 * p.row_warps && p.columns == column_tiles * 8 * p.column_warps, "whole tiles a warp");
    static_assert(column_tiles == 1 || column_tiles % 2 == 0, "tiles of columns are read in pairs");
    static_assert(p.k_warps == 1 || element_bytes<Type> == 4, "warps leave their sums for another as floats");
    static_assert(p.num_stages >= 2, "a ring needs a stage to read and a stage to fill");
    static_assert(p.stationary <= p.parts, "no more parts stay than there are");

    static constexpr int row_chunks = (p.turned ? p.rows : p.part_k) / chunk_elements<Type>;
    static constexpr int column_chunks = p.part_k / chunk_elements<Type>;
    static constexpr bool doubles = element_bytes<Type> == 8;
    using MatrixRows = typename Either<doubles || (p.turned && element_bytes<Type> == 4), SwizzledWords<row_chunks>,
                                       SwizzledRows<row_chunks>>::Type;
    using ColumnRows = typename Either<doubles, SwizzledWords<column_chunks>, SwizzledRows<column_chunks>>::Type;
    using Warp = WarpProduct<Type, tiles, column_tiles, p.part_k / p.k_warps, MatrixRows, ColumnRows, p.turned>;
    using Sums = typename Warp::Sums;

    // ---- shared memory ----
    static constexpr int matrix_bytes = p.rows * p.part_k * element_bytes<Type>;  // of a part
    static constexpr int column_bytes = p.columns * p.part_k * element_bytes<Type>;
    static constexpr int matrix_ring_at = p.stationary * matrix_bytes;
    static constexpr int column_ring_at = matrix_ring_at + (streams ? p.num_stages * matrix_bytes : 0);
    static constexpr int exchange_bytes = (p.k_warps - 1) * p.rows * p.columns * 4;  // in the place of columns
    static constexpr int shared_bytes = column_ring_at + maximum(p.num_stages * column_bytes, exchange_bytes);

    SharedAddress shared;

    /// Copy what stays. load_matrix(to, part): the calling thread's share of the copies of a part.
    template <class LoadMatrix>
    TILESMITH_DEVICE void load_stationary(LoadMatrix load_matrix) const {
        for (int part = 0; part < p.stationary; ++part) load_matrix(shared + part * matrix_bytes, part);
    }

    /// Ask for the first parts of the matrix that do not stay; nobody must be reading the ring any more.
    template <class LoadMatrix>
    TILESMITH_DEVICE void begin(LoadMatrix load_matrix) const {
        for (int stage = 0; stage < lookahead; ++stage)
            if (p.stationary + stage < p.parts)
                load_matrix(shared + matrix_ring_at + stage * matrix_bytes, p.stationary + stage);
        cp_async_commit();
    }

    /// sums = the product, after begin(). load_columns: as load_matrix. beside(): other copies, which have arrived, as all
    /// have, after a wait for all. The block meets before it reads them, and before anything is copied to the rings again;
    /// where warps share k, then comes collect().
    template <class LoadMatrix, class LoadColumns, class Beside>
    TILESMITH_DEVICE void multiply(Sums& sums, int lane, int row_warp, int column_warp, int k_warp, LoadMatrix load_matrix,
                                   LoadColumns load_columns, Beside beside) const {
        typename Warp::Partial partial;
        Warp::clear(partial);
        const SharedAddress column_ring = shared + column_ring_at, matrix_ring = shared + matrix_ring_at;
        for (int stage = 0; stage < lookahead; ++stage) {
            if (stage < p.parts) load_columns(column_ring + stage * column_bytes, stage);
            cp_async_commit();
        }
        const int first_row = row_warp * tiles * 16, first_column = column_warp * column_tiles * 8;
        const SharedAddress own_rows = p.turned ? 0 : first_row * MatrixRows::row_bytes;
        const SharedAddress own_columns = first_column * ColumnRows::row_bytes;
        int stage = 0, matrix_stage = 0;  // that are read
#pragma unroll 1
        for (int part = 0; part < p.parts; ++part) {
            cp_async_wait<p.num_stages - 2>();
            sync_block();  // this part is there, for all; the one before is read, by all
            const int next = part + lookahead;
            if (next < p.parts) {
                load_columns(column_ring + before(stage) * column_bytes, next);
                if (streams && part >= p.stationary) load_matrix(matrix_ring + before(matrix_stage) * matrix_bytes, next);
            }
            if (part == 0) beside();
            cp_async_commit();
            const bool stays = part < p.stationary;
            const SharedAddress matrix = stays ? shared + part * matrix_bytes : matrix_ring + matrix_stage * matrix_bytes;
            Warp::add(partial, matrix + own_rows, first_row / chunk_elements<Type>, column_ring + stage * column_bytes + own_columns,
                      lane, k_warp);
            stage = after(stage);
            if (!stays) matrix_stage = after(matrix_stage);
        }
        Warp::sum(sums, partial);
        if constexpr (p.k_warps > 1) {
            sync_block();  // the columns are read
            if (k_warp > 0)
                for_each_sum(sums, lane, row_warp, column_warp, k_warp - 1, [](const float(&sum)[4], SharedAddress at) {
                    store_shared_float4(at, float4{sum[0], sum[1], sum[2], sum[3]});
                });
        }
    }

    /// Add to the sums of the first of the warps that share k those of the others: only it has the product then.
    TILESMITH_DEVICE void collect(Sums& sums, int lane, int row_warp, int column_warp, int k_warp) const {
        if (k_warp > 0) return;
        if constexpr (p.k_warps > 1)
#pragma unroll
            for (int other = 0; other < p.k_warps - 1; ++other)
                for_each_sum(sums, lane, row_warp, column_warp, other, [](float(&sum)[4], SharedAddress at) {
                    const float4 four = load_shared_float4(at);
                    sum[0] += four.x, sum[1] += four.y, sum[2] += four.z, sum[3] += four.w;
                });
    }

    /// Calls function(sums of a tile, where the `place`-th warp but the first leaves them in shared memory).
    template <class Function>
    TILESMITH_DEVICE void for_each_sum(Sums& sums, int lane, int row_warp, int column_warp, int place, Function function) const {
        const int first = ((place * p.column_warps + column_warp) * p.row_warps + row_warp) * tiles * column_tiles;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                function(sums[tile][column_tile],
                         shared + column_ring_at + ((first + tile * column_tiles + column_tile) * 32 + lane) * chunk_bytes);
    }

    TILESMITH_DEVICE static constexpr int after(int stage) { return stage == p.num_stages - 1 ? 0 : stage + 1; }
    TILESMITH_DEVICE static constexpr int before(int stage) { return stage == 0 ? p.num_stages - 1 : stage - 1; }
};

/// Of a thread's so many copies, how many are written out in a row: the addresses of all are kept in registers.
TILESMITH_DEVICE constexpr int unrolled(int copies) { return copies <= 8 ? copies : 4; }

/// Begin copying `Width` elements to shared memory, or store zeros there.
template <class Type, int Width>
TILESMITH_DEVICE void copy_or_clear(SharedAddress to, const Element<Type>* from, bool real) {
    constexpr int bytes = Width * element_bytes<Type>;
    if (real) {
        if constexpr (bytes >= 4)
            cp_async<bytes>(to, from);
        else
            store_shared_16(to, load_global_16(from));  // too narrow for an asynchronous copy
    } else if constexpr (bytes == 16) {
        store_shared_128(to, uint4{0, 0, 0, 0});
    } else if constexpr (bytes >= 4) {
#pragma unroll
        for (int word = 0; word < bytes / 4; ++word) store_shared_32(to + 4 * word, 0);
    } else {
        store_shared_16(to, 0);
    }
}

}  // namespace tilesmith
