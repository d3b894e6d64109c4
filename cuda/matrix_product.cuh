// A product of two matrices with sizes that are known at launch: out[m, n] = sum over k of a(m, k) b(n, k), plus bias[n].
//
// Either matrix lies with its rows along k or transposed, with its columns along k. Rows that are the steps of a batch of
// sequences may lie time-major, of a, b and out each (`turned`), so that nobody has to copy them: where each row of a tile, or
// of a stage, lies in memory stands in a table in shared memory (matrix_stage.cuh).
//
// A block makes a tile of out. Stages of both matrices travel through a ring in shared memory; of each of them several groups
// of warps take a part of k, and so may the blocks of a cluster, of any size, of all of k. Their sums meet in shared memory,
// always in the same order: the same bits every time. They are rounded once, and leave as vectors.
#pragma once

#include "factors.cuh"
#include "matrix_stage.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// Bits of `turned`: which of the arrays have their steps time-major, step t of sequence b as row t * batch + b instead of
/// b * seq + t. Steps are the rows of a, of out and of transposed matrices, as they lie.
inline constexpr int turned_a = 1, turned_b = 2, turned_out = 4;

template <class Word>
struct MatrixProductArgumentsOf {
    const Word* a;     // [rows, depth], transposed [depth, rows]
    const Word* b;     // [columns, depth], transposed [depth, columns]
    const void* bias;  // [columns], elements as of out, or null
    void* out;         // [rows, columns]
    int rows;
    int columns;
    int depth;
    int batch;  // where any array is turned: of the steps
    int seq;
    int turned;
};
using MatrixProductArguments = MatrixProductArgumentsOf<unsigned short>;

/// kernelgen/schedules/shared/matrix_product.py chooses.
struct MatrixProductTiling {
    int row_warps;
    int column_warps;
    int depth_groups;  // warps that share a part of the tile
    int warp_tiles;    // of 16 rows, per warp
    int columns;       // of the block's tile
    int depth;         // k of a stage
    int num_stages;
    int a_width;  // elements that are copied at once
    int b_width;
    int out_width;  // and written
    bool a_transposed;
    bool b_transposed;
    bool floats;  // whether out and bias are floats, whatever the type
};

template <class Type, MatrixProductTiling tiling>
struct MatrixProduct {
    // ---- sizes ----
    static constexpr int tile_warps = tiling.row_warps * tiling.column_warps;
    static constexpr int threads = 32 * tile_warps * tiling.depth_groups;
    static constexpr int rows = 16 * tiling.row_warps * tiling.warp_tiles, columns = tiling.columns;  // of a tile of out
    static constexpr int warp_columns = columns / tiling.column_warps;
    static constexpr int column_tiles = warp_columns / 8;  // of a warp
    static constexpr int slices = tiling.depth / product_depth<Type>;
    /// Instructions along k that are written out in a row: of floats and doubles one, since each has many registers.
    static constexpr int written_out = sums_in_tensor_cores<Type> ? slices / tiling.depth_groups : 1;
    static_assert(warp_columns % 16 == 0, "columns come in pairs of matrix tiles");
    static_assert(slices % tiling.depth_groups == 0, "every group takes as much of a stage");
    static_assert(maximum(tiling.depth, maximum(rows, columns)) <= threads, "a thread for each row of a tile and of a stage");

    using Number = Real<Type>;
    using Out = typename Either<tiling.floats, float, Element<Type>>::Type;
    using A = StageOfMatrix<Type, tiling.a_transposed, rows, tiling.depth, tiling.a_width, threads>;
    using B = StageOfMatrix<Type, tiling.b_transposed, columns, tiling.depth, tiling.b_width, threads>;
    static constexpr int stage_bytes = A::bytes + B::bytes;

    // Sums as rows of the tile, for each group; 32 bytes more than a row, so that pairs of 4 rows are in different banks.
    static constexpr int number_bytes = static_cast<int>(sizeof(Number));
    static constexpr int sum_row_bytes = columns * number_bytes + 2 * chunk_bytes;
    static constexpr int sums_bytes = rows * sum_row_bytes;

    // Tables of places: of a tile's rows, or, where a matrix is transposed, of each stage's.
    static constexpr int a_places = tiling.a_transposed ? tiling.num_stages * tiling.depth : rows;
    static constexpr int b_places = tiling.b_transposed ? tiling.num_stages * tiling.depth : columns;
    static constexpr int bias_at = maximum(tiling.num_stages * stage_bytes, tiling.depth_groups * sums_bytes);
    static constexpr int a_places_at = bias_at + columns * number_bytes;
    static constexpr int b_places_at = a_places_at + a_places * place_bytes, shared_bytes = b_places_at + b_places * place_bytes;

    /// Elements that a thread writes in turn: 16 bytes, or four sums.
    static constexpr int unit = maximum(4, chunk_bytes / static_cast<int>(sizeof(Out)));
    /// Whether blocks may share a tile: doubles are not handed from block to block.
    static constexpr bool clusters = architecture >= 90 && number_bytes == 4;

    // ---- the thread's place ----
    const MatrixProductArgumentsOf<Element<Type>>& in;
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int row_warp = thread / 32 % tiling.row_warps;
    const int column_warp = thread / 32 / tiling.row_warps % tiling.column_warps;
    const int group = thread / 32 / tile_warps;
    const int parts = clusters ? static_cast<int>(cluster_blocks()) : 1;
    const int tile = static_cast<int>(block_x()) / parts;
    const int part = static_cast<int>(block_x()) % parts;
    const int column_blocks = ceil_div(in.columns, columns);
    const int first_row = tile / column_blocks * rows;
    const int first_column = tile % column_blocks * columns;
    const SharedAddress shared = shared_memory();

    // ---- which stages of k are the block's ----
    const int all_stages = ceil_div(in.depth, tiling.depth);
    const int first_stage = minimum(part * ceil_div(all_stages, parts), all_stages);
    const int stages = minimum(ceil_div(all_stages, parts), all_stages - first_stage);

    // ---- where steps lie ----
    const int seq = maximum(1, in.seq);
    // Of a transposed matrix every thread follows a row through the stages, a stage's depth at a time.
    int next_step = first_stage * tiling.depth + thread;
    int next_sequence = next_step / seq;
    int next_time = next_step % seq;
    const int sequences_a_stage = tiling.depth / seq, time_a_stage = tiling.depth % seq;

    Number sums[tiling.warp_tiles][column_tiles][4];

    /// Which row of the array is row `number`.
    TILESMITH_DEVICE int turn(int number, int bit) const {
        return (in.turned & bit) != 0 ? number % seq * in.batch + number / seq : number;
    }

    /// The places of matrices whose rows are the tile's.
    TILESMITH_DEVICE void write_places() const {
        if (!tiling.a_transposed && thread < rows) {
            const int row = first_row + thread;
            store_place(shared + a_places_at, thread, row < in.rows ? static_cast<long long>(turn(row, turned_a)) * in.depth : nowhere);
        }
        if (!tiling.b_transposed && thread < columns) {
            const int column = first_column + thread;
            store_place(shared + b_places_at, thread, column < in.columns ? static_cast<long long>(column) * in.depth : nowhere);
        }
    }

    /// Of matrices whose rows are k: those of the next stage, which will lie in `slot`.
    TILESMITH_DEVICE void write_next_places(int slot) {
        if constexpr (tiling.a_transposed || tiling.b_transposed) {
            if (thread >= tiling.depth) return;
            const int at = slot * tiling.depth + thread, turned = next_time * in.batch + next_sequence;
            const bool real = next_step < in.depth;
            if constexpr (tiling.a_transposed) {
                const long long row = (in.turned & turned_a) != 0 ? turned : next_step;
                store_place(shared + a_places_at, at, real ? row * in.rows : nowhere);
            }
            if constexpr (tiling.b_transposed) {
                const long long row = (in.turned & turned_b) != 0 ? turned : next_step;
                store_place(shared + b_places_at, at, real ? row * in.columns : nowhere);
            }
            next_step += tiling.depth, next_sequence += sequences_a_stage, next_time += time_a_stage;
            if (next_time >= seq) next_time -= seq, ++next_sequence;
        }
    }

    /// Begin copying stage `stage` of the block's.
    TILESMITH_DEVICE void begin_copy(int slot, int stage) const {
        const SharedAddress to = shared + slot * stage_bytes;
        const int k = (first_stage + stage) * tiling.depth;
        if constexpr (tiling.a_transposed)
            A::copy(to, shared + a_places_at + slot * tiling.depth * place_bytes, in.a, in.rows, first_row, thread);
        else
            A::copy(to, shared + a_places_at, in.a, in.depth, k, thread);
        if constexpr (tiling.b_transposed)
            B::copy(to + A::bytes, shared + b_places_at + slot * tiling.depth * place_bytes, in.b, in.columns, first_column, thread);
        else
            B::copy(to + A::bytes, shared + b_places_at, in.b, in.depth, k, thread);
    }

    TILESMITH_DEVICE void load_bias() const {
        if (thread >= columns) return;
        const int column = first_column + thread;
        Number value = 0;
        if (in.bias != nullptr && column < in.columns) {
            if constexpr (tiling.floats)
                value = load_global_float(static_cast<const float*>(in.bias) + column);
            else
                value = to_real<Type>(load_element(static_cast<const Element<Type>*>(in.bias) + column));
        }
        const SharedAddress to = shared + bias_at + thread * number_bytes;
        if constexpr (number_bytes == 8)
            store_shared_double(to, value);
        else
            store_shared_32(to, __float_as_uint(value));
    }

    // ---- the product ----

    /// Add the product of a stage's part to the warp's sums.
    TILESMITH_DEVICE void multiply(SharedAddress stage) {
#pragma unroll(written_out)
        for (int slice = 0; slice < slices; slice += tiling.depth_groups) {
            Factors<Type, 2> b[column_tiles];
#pragma unroll
            for (int n = 0; n < column_tiles; n += 2) {
                typename B::Word words[B::words];  // of two tiles of 8 columns
                B::load(words, stage + A::bytes, column_warp * warp_columns + 8 * n, slice + group, lane);
#pragma unroll
                for (int i = 0; i < B::words; ++i) b[n + i % 2].set(i / 2, words[i]);
            }
#pragma unroll
            for (int m = 0; m < tiling.warp_tiles; ++m) {
                typename A::Word words[A::words];
                A::load(words, stage, 16 * (row_warp * tiling.warp_tiles + m), slice + group, lane);
                Factors<Type, 4> a;
#pragma unroll
                for (int i = 0; i < A::words; ++i) a.set(i, words[i]);
#pragma unroll
                for (int n = 0; n < column_tiles; ++n) multiply_add(sums[m][n], a, b[n]);
            }
        }
    }

    // ---- from sums to out ----

    /// Leave the warp's sums in its group's place.
    TILESMITH_DEVICE void leave_sums() const {
        const int g = lane / 4, j = lane % 4;
#pragma unroll
        for (int m = 0; m < tiling.warp_tiles; ++m)
#pragma unroll
            for (int n = 0; n < column_tiles; ++n)
#pragma unroll
                for (int upper = 0; upper < 2; ++upper) {
                    const int row = 16 * (row_warp * tiling.warp_tiles + m) + 8 * upper + g;
                    const int column = column_warp * warp_columns + 8 * n + 2 * j;
                    const SharedAddress to = sums_at(group, row, column);
                    const Number first = sums[m][n][2 * upper], second = sums[m][n][2 * upper + 1];
                    if constexpr (number_bytes == 8)
                        store_shared_double(to, first), store_shared_double(to + 8, second);
                    else
                        store_shared_64(to, uint2{__float_as_uint(first), __float_as_uint(second)});
                }
    }

    TILESMITH_DEVICE SharedAddress sums_at(int of_group, int row, int column) const {
        return shared + of_group * sums_bytes + row * sum_row_bytes + column * number_bytes;
    }

    TILESMITH_DEVICE static void add_four(float* total, float4 four) {
        total[0] += four.x, total[1] += four.y, total[2] += four.z, total[3] += four.w;
    }

    /// Add four sums that lie in the block's shared memory.
    TILESMITH_DEVICE static void add_four(Number* total, SharedAddress from) {
        if constexpr (number_bytes == 4)
            add_four(total, load_shared_float4(from));
        else
#pragma unroll
            for (int i = 0; i < 4; ++i) total[i] += load_shared_double(from + 8 * i);
    }

    /// Add the groups' sums to those of the first, for the other blocks.
    TILESMITH_DEVICE void add_groups() const {
        if constexpr (tiling.depth_groups > 1) {
            sync_block();  // all groups have left theirs
#pragma unroll 1
            for (int i = thread; i < rows * columns / 4; i += threads) {
                const int row = i / (columns / 4), column = i % (columns / 4) * 4;
                float total[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                for (int other = 0; other < tiling.depth_groups; ++other)
                    add_four(total, load_shared_float4(sums_at(other, row, column)));
                store_shared_float4(sums_at(0, row, column), float4{total[0], total[1], total[2], total[3]});
            }
        }
    }

    static constexpr int row_units = columns / unit, units = rows * row_units;

    /// The sums of a unit: of all groups, or, of a cluster, where each block has added those, of all blocks; and the bias.
    template <bool of_cluster>
    TILESMITH_DEVICE void collect(Number (&total)[unit], int number) const {
        const int row = number / row_units, column = number % row_units * unit;
#pragma unroll
        for (int e = 0; e < unit; ++e) total[e] = 0;
        if constexpr (of_cluster) {
#pragma unroll 4
            for (int other = 0; other < parts; ++other)
#pragma unroll
                for (int e = 0; e < unit; e += 4)
                    add_four(total + e, load_cluster_float4(sums_at(0, row, column + e), static_cast<unsigned>(other)));
        } else {
#pragma unroll
            for (int other = 0; other < tiling.depth_groups; ++other)
#pragma unroll
                for (int e = 0; e < unit; e += 4) add_four(total + e, sums_at(other, row, column + e));
        }
#pragma unroll
        for (int e = 0; e < unit; e += 4) add_four(total + e, shared + bias_at + (column + e) * number_bytes);
    }

    TILESMITH_DEVICE void write_unit(const Number (&total)[unit], int number) const {
        const int row = first_row + number / row_units, column = first_column + number % row_units * unit;
        if (row >= in.rows) return;
        Out* const to = static_cast<Out*>(in.out) + static_cast<long long>(turn(row, turned_out)) * in.columns + column;
#pragma unroll
        for (int e = 0; e < unit; e += tiling.out_width)
            if (column + e < in.columns) write(to + e, total + e);
    }

    /// Write the tile.
    TILESMITH_DEVICE void write_alone() const {
        sync_block();  // all sums are there
#pragma unroll 1
        for (int number = thread; number < units; number += threads) {
            Number total[unit];
            collect<false>(total, number);
            write_unit(total, number);
        }
    }

    /// Write the block's share of the tile, when the others are done with this block's sums: a barrier waits for stores.
    TILESMITH_DEVICE void write_share() const {
        constexpr int most = ceil_div(units, 2 * threads);
        Number total[most][unit];
        add_groups();
        sync_cluster();
#pragma unroll
        for (int i = 0; i < most; ++i) {
            const int number = (i * parts + part) * threads + thread;
            if (number < units) collect<true>(total[i], number);
        }
        sync_cluster();  // nobody leaves while its memory is read
#pragma unroll
        for (int i = 0; i < most; ++i) {
            const int number = (i * parts + part) * threads + thread;
            if (number < units) write_unit(total[i], number);
        }
    }

    /// Write a vector.
    TILESMITH_DEVICE static void write(Out* to, const Number* from) {
        constexpr int bytes = tiling.out_width * static_cast<int>(sizeof(Out));
        if constexpr (sizeof(Out) == 8) {
#pragma unroll
            for (int i = 0; i < tiling.out_width; ++i) store_element(to + i, from[i]);
        } else if constexpr (bytes < 4) {
            store_element(to, to_element<Type>(from[0]));
        } else {
            unsigned words[bytes / 4];
#pragma unroll
            for (int i = 0; i < bytes / 4; ++i) {
                if constexpr (sizeof(Out) == 2)
                    words[i] = pack<Type>(from[2 * i], from[2 * i + 1]);
                else
                    words[i] = __float_as_uint(static_cast<float>(from[i]));
            }
            if constexpr (bytes == 16)
                store_global_128(to, uint4{words[0], words[1], words[2], words[3]});
            else if constexpr (bytes == 8)
                store_global_64(to, uint2{words[0], words[1]});
            else
                store_global_32(to, words[0]);
        }
    }

    TILESMITH_DEVICE void run() {
#pragma unroll
        for (int m = 0; m < tiling.warp_tiles; ++m)
#pragma unroll
            for (int n = 0; n < column_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;
        write_places();
#pragma unroll 1
        for (int slot = 0; slot < tiling.num_stages; ++slot) write_next_places(slot);
        sync_block();
#pragma unroll 1
        for (int stage = 0; stage < tiling.num_stages - 1; ++stage) {
            if (stage < stages) begin_copy(stage, stage);
            cp_async_commit();
        }
        load_bias();
        int slot = 0;
#pragma unroll 1
        for (int stage = 0; stage < stages; ++stage) {
            cp_async_wait<tiling.num_stages - 2>();
            sync_block();  // the stage is there, and the one before it is read
            const int next = stage + tiling.num_stages - 1;
            if (next < stages) begin_copy(slot == 0 ? tiling.num_stages - 1 : slot - 1, next);
            cp_async_commit();
            multiply(shared + slot * stage_bytes);
            write_next_places(slot);  // for the copies that the next turn begins, while tensor cores are busy
            slot = slot == tiling.num_stages - 1 ? 0 : slot + 1;
        }
        sync_block();  // all stages are read
        leave_sums();
        if constexpr (clusters) {
            if (parts > 1) return write_share();
        }
        write_alone();
    }
};

}  // namespace tilesmith
