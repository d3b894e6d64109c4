// The gradients of R and b after the last step: for every head and gate the product of the gates' gradients with the
// previous h over all steps of all sequences, and their sum. Both arrays are read once and as they lie.
//
// A block takes one head, a tile of the product (rows: gates' units, columns: previous units) and all steps or a part of
// them, which travel through a ring of stages in shared memory. The sum is one more column, of a matrix of ones. Warps
// may share a tile, each with some of a stage's steps, and so may the blocks of a cluster; sums are always added in the
// same order: the same bits every time.
//
// Of the gates without an input a backward kernel has left their gradients too, in an array of their own, or partial sums of
// what is made of them (partial_gradients.cuh), which are added here.
#pragma once

#include "factors.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// The arrays of the product. Steps of all sequences are one axis: B T of them.
template <class Word>
struct ParameterGradientArgumentsOf {
    const Word* d_wx;               // [B, T, G_in, H, D]
    const Word* d_inputless;        // [B, T, G_rec without an input, H, D], where tiling.inputless
    const SumOf<Word>* d_r_partial;       // else [P, G_rec without an input, H, D, D], or null if there is no such gate
    const SumOf<Word>* d_b_partial;       // [P, G_bias without an input, H, D] likewise
    const Word* hidden;             // [B, T, H, D]
    const Word* initial;            // [B, H, D]: h before the first step, or null: zeros
    const unsigned char* resets;    // [B, T]: 1 where h before a step is that again; or null, see Sequences
    void* d_r;                      // [G_rec, H, D, D]; of parts that are apart: sums [parts, G_rec, H, D, D]
    void* d_b;                      // [G_bias, H, D] likewise, or null if no gate has a bias
    int batch;
    int seq;
    int num_partials;  // P
};
using ParameterGradientArguments = ParameterGradientArgumentsOf<unsigned short>;

/// kernelgen/schedules/shared/parameter_gradients.py chooses.
struct ParameterGradientTiling {
    int row_warps;
    int warp_tiles;   // of 16 rows, per warp
    int columns;      // a multiple of 16
    int step_groups;  // warps that share a part of the tile
    int depth;        // steps of a stage
    int num_stages;
    int parts;        // of the steps
    bool inputless;   // whether there are the gradients of gates without an input, instead of partial sums of products
    bool cluster;     // whether the parts are a cluster, which adds them, or leave a result each
    int column_warps = 1;  // that share the columns
    bool floats = false;   // whether results are floats, whatever the type
};

/// What `count` elements of a step take in a stage, such that a warp's loads meet no bank twice: ldmatrix reads 16 bytes of
/// 8 steps, so that steps lie an odd number of those apart; words of 8 elements in each of 4 steps want 8 words more, and
/// doubles likewise.
template <class Type>
TILESMITH_DEVICE constexpr int stage_row_bytes(int count) {
    return element_bytes<Type> == 2 ? (count / 8 | 1) * chunk_bytes : count * element_bytes<Type> + 2 * chunk_bytes;
}

template <class Cell, class Type, FixedShape shape, ParameterGradientTiling tiling, Sequences sequences = Sequences{}>
struct ParameterGradients {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int padded = ceil_div(D, 16) * 16;
    static constexpr int size = element_bytes<Type>;
    using Number = Real<Type>;
    static constexpr int width = widest_vector<Type>(D);
    static constexpr unsigned inputless = tiling.inputless ? Cell::recurrent & ~Cell::input : 0;
    static constexpr unsigned members = ((Cell::recurrent | Cell::bias) & Cell::input) | inputless;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int bias_gates = count_bits(Cell::bias);

    static constexpr int tile_warps = tiling.row_warps * tiling.column_warps;
    static constexpr int threads = 32 * tile_warps * tiling.step_groups;
    static constexpr int rows = 16 * tiling.row_warps * tiling.warp_tiles;  // of the product, per block
    static constexpr int columns = tiling.columns;
    static constexpr int warp_columns = columns / tiling.column_warps;
    static constexpr int column_tiles = warp_columns / 8;  // of a warp
    static constexpr int row_blocks = ceil_div(maximum(1, count_bits(members)) * padded, rows);
    static constexpr int column_blocks = ceil_div(padded, columns);
    static constexpr int blocks = row_blocks * column_blocks;  // per head

    static constexpr int depth = tiling.depth;
    static constexpr int tile_steps = product_depth<Type>;  // that a matrix instruction adds up
    static constexpr int gate_row_bytes = stage_row_bytes<Type>(rows);
    static constexpr int hidden_row_bytes = stage_row_bytes<Type>(columns);
    static constexpr int hidden_at = depth * gate_row_bytes;
    static constexpr int stage_bytes = hidden_at + depth * hidden_row_bytes;
    static constexpr int warp_sums = tiling.warp_tiles * (column_tiles + 1);  // float4 a lane
    static constexpr bool apart = tiling.parts > 1 && !tiling.cluster;
    static constexpr bool cluster = tiling.parts > 1 && tiling.cluster;
    static constexpr int exchanging = maximum(tiling.step_groups - 1, cluster ? 1 : 0);  // step groups at a time
    static constexpr int exchange_bytes = exchanging * tile_warps * warp_sums * 32 * chunk_bytes;
    static constexpr int shared_bytes = maximum(tiling.num_stages * stage_bytes, exchange_bytes);

    // Each thread copies the same columns of several steps. Values that are too narrow for asynchronous copies take a
    // register each on their way.
    static constexpr bool through_register = width * size < 4;
    static constexpr int copies_at_once = through_register ? 8 : depth;
    static constexpr int gate_pieces = rows / width;
    static constexpr int hidden_pieces = columns / width;
    static_assert(size < 8 || (tiling.step_groups == 1 && !cluster), "warps and blocks leave their sums for others as floats");
    static_assert(gate_pieces <= threads && hidden_pieces <= threads, "too few threads to copy a step");
    static_assert(warp_columns % 16 == 0 && columns % warp_columns == 0, "columns come in pairs of matrix tiles");
    static_assert(depth % (tile_steps * tiling.step_groups) == 0, "every warp takes as many steps of a stage");

    // Whether sequences begin anew is loaded a stage ahead where a thread copies few steps of it, a bit each.
    static constexpr int hidden_steps = threads / hidden_pieces;
    static constexpr int hidden_copies = ceil_div(depth, hidden_steps);
    static constexpr bool flags_ahead = sequences.resets && hidden_copies <= 16;

    // ---- the thread's place ----
    const ParameterGradientArgumentsOf<Element<Type>>& in;
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int row_warp = thread / 32 % tiling.row_warps;
    const int column_warp = tiling.column_warps == 1 ? 0 : thread / 32 / tiling.row_warps % tiling.column_warps;
    const int step_group = thread / 32 / tile_warps;
    const int head = static_cast<int>(block_x()) / tiling.parts;
    const int part = cluster ? static_cast<int>(cluster_rank()) : static_cast<int>(block_x()) % tiling.parts;
    const int first_row = static_cast<int>(block_y()) / column_blocks * rows;
    const int first_column = static_cast<int>(block_y()) % column_blocks * columns;
    const SharedAddress shared = shared_memory();
    const int part_steps = ceil_div(ceil_div(in.batch * in.seq, tiling.parts), depth) * depth;
    const int first_step = part * part_steps;
    const int steps = minimum(first_step + part_steps, in.batch * in.seq);  // the end of them

    // Whether the warp is one of those whose sums over steps are written; where warps share columns, others do without.
    const bool with_sum = bias_gates > 0 && (tiling.column_warps == 1 || first_column + column_warp == 0);

    Number sums[tiling.warp_tiles][column_tiles + 1][4];  // the last column tile is the sum
    unsigned flags[flags_ahead ? hidden_copies : 1];     // of what is copied next

    // ---- from global to shared memory ----

    TILESMITH_DEVICE static void copy(SharedAddress to, const Element<Type>* from) {
        if constexpr (through_register)
            store_shared_16(to, load_global_16(from));
        else
            cp_async<size * width>(to, from);
    }
    TILESMITH_DEVICE static void clear(SharedAddress to) {
#pragma unroll
        for (int word = 0; word < width; ++word) {
            store_shared_element<Type>(to + size * word, 0);
        }
    }

    /// The gradients of a gate's unit at step 0, and how far it is to the next step. Null for padding.
    TILESMITH_DEVICE const Element<Type>* gate_source(int row, long long& stride) const {
        const int index = row / padded, unit = row % padded;
        if (index >= count_bits(members) || unit >= D) return nullptr;
        const int gate = nth_bit(members, index);
        const bool input = has(Cell::input, gate);
        stride = static_cast<long long>(shape.heads) * D * (input ? input_gates : count_bits(inputless));
        const int rank = input ? rank_among(Cell::input, gate) : rank_among(inputless, gate);
        return (input ? in.d_wx : in.d_inputless) + (rank * shape.heads + head) * D + unit;
    }

    /// Begin to load what begin_copy wants to know of the stage from `step` on.
    TILESMITH_DEVICE void load_flags(int step) {
        if constexpr (flags_ahead) {
#pragma unroll
            for (int i = 0; i < hidden_copies; ++i) {
                const int at = step + i * hidden_steps + thread / hidden_pieces;
                flags[i] = at < steps ? load_global_8(in.resets + at) : 0;
            }
        }
    }

    /// Whether h before step `at`, the i-th that this thread copies, is the initial one.
    TILESMITH_DEVICE bool begins_at(int at, unsigned known, int i) const {
        if (at % in.seq == 0) return true;
        if constexpr (flags_ahead) return (known >> i & 1) != 0;
        if constexpr (sequences.resets) return at < steps && load_global_8(in.resets + at) != 0;
        return false;
    }

    /// Begin copying the stage of `depth` steps from `step` on, of which load_flags knows; zeros beyond the last.
    TILESMITH_DEVICE void begin_copy(SharedAddress stage, int step, const Element<Type>* gate, long long stride) {
        constexpr int gate_steps = threads / gate_pieces;
        const int gate_column = thread % gate_pieces * width;
        if (gate != nullptr && thread < gate_steps * gate_pieces)
#pragma unroll copies_at_once
            for (int k = 0; k < depth; k += gate_steps) {
                const int row = k + thread / gate_pieces;
                if (depth % gate_steps != 0 && row >= depth) break;
                const SharedAddress to = stage + row * gate_row_bytes + size * gate_column;
                if (step + row < steps)
                    copy(to, gate + (step + row) * stride);
                else
                    clear(to);
            }
        const int hidden_column = thread % hidden_pieces * width;
        const int unit = first_column + hidden_column;
        unsigned known = 0;
        if constexpr (flags_ahead) {
#pragma unroll
            for (int i = 0; i < hidden_copies; ++i) known |= (flags[i] != 0 ? 1u : 0u) << i;
            load_flags(step + depth);
        }
        if (unit < D && thread < hidden_steps * hidden_pieces)
#pragma unroll copies_at_once
            for (int k = 0; k < depth; k += hidden_steps) {
                const int row = k + thread / hidden_pieces;
                if (depth % hidden_steps != 0 && row >= depth) break;
                const SharedAddress to = stage + hidden_at + row * hidden_row_bytes + size * hidden_column;
                const int at = step + row;
                const bool begins = begins_at(at, known, k / hidden_steps);
                if (at >= steps || (begins && in.initial == nullptr))
                    clear(to);
                else if (begins)
                    copy(to, in.initial + (static_cast<long long>(at / in.seq) * shape.heads + head) * D + unit);
                else
                    copy(to, in.hidden + (static_cast<long long>(at - 1) * shape.heads + head) * D + unit);
            }
    }

    // ---- the product ----

    /// Add the product of a stage to the warp's sums.
    TILESMITH_DEVICE void multiply(SharedAddress stage) {
        if constexpr (size == 2)
            multiply_16(stage);
        else
            multiply_elements(stage);
    }

    TILESMITH_DEVICE static auto load_factor(SharedAddress from) {
        if constexpr (size == 8)
            return load_shared_double(from);
        else
            return load_shared_32(from);
    }

    TILESMITH_DEVICE void multiply_16(SharedAddress stage) {
        const unsigned one = pack<Type>(1.0f, 1.0f);
#pragma unroll
        for (int slice = 0; slice < depth / 16; slice += tiling.step_groups) {
            const int k = 16 * (slice + step_group);
            unsigned b[column_tiles][2];
#pragma unroll
            for (int pair = 0; pair < column_tiles / 2; ++pair) {
                unsigned four[4];  // lanes 0-7, 8-15: rows k and k + 8 of the first tile; 16 and on: of the second
                ldmatrix_x4_trans(four, stage + hidden_at + (k + lane % 16) * hidden_row_bytes +
                                            (column_warp * column_tiles + 2 * pair + lane / 16) * chunk_bytes);
                b[2 * pair][0] = four[0], b[2 * pair][1] = four[1];
                b[2 * pair + 1][0] = four[2], b[2 * pair + 1][1] = four[3];
            }
#pragma unroll
            for (int tile = 0; tile < tiling.warp_tiles; ++tile) {
                unsigned a[4];  // lanes 0-7, 8-15: 8 units and the next 8, from row k; 16 and on: from row k + 8
                const int column = 2 * (row_warp * tiling.warp_tiles + tile) + lane / 8 % 2;
                ldmatrix_x4_trans(a, stage + (k + lane % 8 + lane / 16 * 8) * gate_row_bytes + column * chunk_bytes);
#pragma unroll
                for (int n = 0; n < column_tiles; ++n) mma_m16n8k16<Type>(sums[tile][n], a, b[n][0], b[n][1], sums[tile][n]);
                if (with_sum) mma_m16n8k16<Type>(sums[tile][column_tiles], a, one, one, sums[tile][column_tiles]);
            }
        }
    }

    /// Of floats and doubles: as many products for one as the type has (factors.cuh).
    TILESMITH_DEVICE void multiply_elements(SharedAddress stage) {
        const int g = lane / 4, j = lane % 4;
        const SharedAddress gates_at = stage + j * gate_row_bytes + size * (16 * row_warp * tiling.warp_tiles + g);
        const SharedAddress hidden_from = stage + hidden_at + j * hidden_row_bytes + size * (column_warp * warp_columns + g);
#pragma unroll 1
        for (int slice = 0; slice < depth / tile_steps; slice += tiling.step_groups) {
            const int k = tile_steps * (slice + step_group);
            Factors<Type, 2> b[column_tiles];
#pragma unroll
            for (int n = 0; n < column_tiles; ++n)
#pragma unroll
                for (int i = 0; i < tile_steps / 4; ++i)
                    b[n].set(i, load_factor(hidden_from + (k + 4 * i) * hidden_row_bytes + 8 * n * size));
#pragma unroll
            for (int tile = 0; tile < tiling.warp_tiles; ++tile) {
                Factors<Type, 4> a;
#pragma unroll
                for (int i = 0; i < tile_steps / 2; ++i)
                    a.set(i, load_factor(gates_at + (k + i / 2 * 4) * gate_row_bytes + (16 * tile + i % 2 * 8) * size));
#pragma unroll
                for (int n = 0; n < column_tiles; ++n) multiply_add(sums[tile][n], a, b[n]);
                if (with_sum) add_up(sums[tile][column_tiles], a);
            }
        }
    }

    /// Calls function(sums of a tile, where the `place`-th step group leaves them in shared memory).
    template <class Function>
    TILESMITH_DEVICE void for_each_sum(int place, Function function) {
        const int first = (place * tile_warps + column_warp * tiling.row_warps + row_warp) * warp_sums;
#pragma unroll
        for (int tile = 0; tile < tiling.warp_tiles; ++tile)
#pragma unroll
            for (int n = 0; n <= column_tiles; ++n)
                function(sums[tile][n], shared + ((first + tile * (column_tiles + 1) + n) * 32 + lane) * chunk_bytes);
    }

    /// Leave the sums of a step group in its place.
    TILESMITH_DEVICE void leave(int place) {
        for_each_sum(place, [](const float(&sum)[4], SharedAddress at) {
            store_shared_float4(at, float4{sum[0], sum[1], sum[2], sum[3]});
        });
    }

    /// Where warps share a tile: add the sums of all to those of the first.
    TILESMITH_DEVICE void combine_warps() {
        if constexpr (tiling.step_groups > 1) {
            sync_block();  // the stages are read
            if (step_group > 0) leave(step_group - 1);
            sync_block();
            if (step_group > 0) return;
            for (int place = 0; place < tiling.step_groups - 1; ++place)
                for_each_sum(place, [](float(&sum)[4], SharedAddress at) {
                    const float4 other = load_shared_float4(at);
                    sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
                });
        }
    }

    /// Write element `at` of one of the results, of `size` elements.
    TILESMITH_DEVICE void write(void* results, long long size, long long at, Number value) const {
        if constexpr (apart)
            store_element(static_cast<Number*>(results) + part * size + at, value);
        else if constexpr (tiling.floats)
            store_global_float(static_cast<float*>(results) + at, value);
        else
            store_element(static_cast<Element<Type>*>(results) + at, to_element<Type>(value));
    }

    /// Write the n-th four sums of a lane of a warp, in the order in which for_each_sum leaves them.
    TILESMITH_DEVICE void write_sums(int of_warp, int n, int of_lane, const Number (&four)[4]) const {
        const int tile = n / (column_tiles + 1), column = 8 * (n % (column_tiles + 1));
        const int g = of_lane / 4, j = of_lane % 4;
        const int of_row = tiling.column_warps == 1 ? of_warp : of_warp % tiling.row_warps;
        const int of_column = tiling.column_warps == 1 ? 0 : of_warp / tiling.row_warps;
        const int from_column = first_column + of_column * warp_columns;
#pragma unroll
        for (int upper = 0; upper < 2; ++upper) {
            const int row = first_row + 16 * (of_row * tiling.warp_tiles + tile) + 8 * upper + g;
            const int index = row / padded, unit = row % padded;
            if (index >= count_bits(members) || unit >= D) continue;
            const int gate = nth_bit(members, index);
            const Number first = four[2 * upper], second = four[2 * upper + 1];
            if (column < warp_columns) {
                const int p = from_column + column + 2 * j;
                const long long slice = rank_among(Cell::recurrent, gate) * shape.heads + head;
                const long long to = (slice * D + unit) * D + p;
                if (has(Cell::recurrent, gate) && p < D) write(in.d_r, d_r_size, to, first);
                if (has(Cell::recurrent, gate) && p + 1 < D) write(in.d_r, d_r_size, to + 1, second);
            } else if (has(Cell::bias & Cell::input, gate) && from_column == 0 && j == 0) {
                const long long slice = rank_among(Cell::bias, gate) * shape.heads + head;
                write(in.d_b, d_b_size, slice * D + unit, first);
            }
        }
    }

    /// Write a block's own sums, from the first step group's registers.
    TILESMITH_DEVICE void write_out() {
        if (step_group > 0) return;
#pragma unroll
        for (int tile = 0; tile < tiling.warp_tiles; ++tile)
#pragma unroll
            for (int n = 0; n <= column_tiles; ++n)
                write_sums(column_warp * tiling.row_warps + row_warp, tile * (column_tiles + 1) + n, lane, sums[tile][n]);
    }

    /// Where blocks share a tile: each adds up a part of it from all, and writes that.
    TILESMITH_DEVICE void combine_blocks() {
        sync_block();  // the stages and the other warps' sums are read
        if (step_group == 0) leave(0);
        sync_cluster();
        for (int at = part * threads + thread; at < tile_warps * warp_sums * 32; at += tiling.parts * threads) {
            float4 total = load_cluster_float4(shared + at * chunk_bytes, 0);
#pragma unroll
            for (int other = 1; other < tiling.parts; ++other) {
                const float4 four = load_cluster_float4(shared + at * chunk_bytes, other);
                total.x += four.x, total.y += four.y, total.z += four.z, total.w += four.w;
            }
            const float sum[4] = {total.x, total.y, total.z, total.w};
            write_sums(at / (32 * warp_sums), at / 32 % warp_sums, at % 32, sum);
        }
        sync_cluster();  // nobody leaves while its memory is read
    }

    // ---- the gates without an input ----

    /// Counts elements of what is added.
    using Count = typename Either<fits_int(count_bits(Cell::recurrent) * static_cast<long long>(shape.heads) * D * D), int, long long>::Type;

    static constexpr long long d_b_size = static_cast<long long>(bias_gates) * shape.heads * D;
    static constexpr long long d_r_size = static_cast<long long>(recurrent_gates) * shape.heads * D * D;

    /// Add up the partial sums of the gates among `gates`, of `slice` elements a gate: all blocks share the work, or those
    /// of a part where parts are apart, which then take some of the partial sums each.
    TILESMITH_DEVICE void add_partials(const Number* partial, void* results, unsigned gates, unsigned with_results,
                                       Count slice) const {
        const Count size = count_bits(gates) * slice;
        const int sharing = apart ? 1 : tiling.parts;
        const int block = (static_cast<int>(block_y()) * shape.heads + head) * sharing + (apart ? 0 : part);
        for (Count at = block * threads + thread; at < size; at += blocks * shape.heads * sharing * threads) {
            Number total = 0;
            for (int i = apart ? part : 0; i < in.num_partials; i += apart ? tiling.parts : 1)
                total += load_element(partial + static_cast<long long>(i) * size + at);
            const long long to = rank_among(with_results, nth_bit(gates, static_cast<int>(at / slice)));
            write(results, static_cast<long long>(count_bits(with_results)) * slice, to * slice + at % slice, total);
        }
    }

    TILESMITH_DEVICE void run() {
        for (int i = thread; i < shared_bytes / chunk_bytes; i += threads)
            store_shared_128(shared + i * chunk_bytes, uint4{0, 0, 0, 0});
#pragma unroll
        for (int tile = 0; tile < tiling.warp_tiles; ++tile)
#pragma unroll
            for (int n = 0; n <= column_tiles; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[tile][n][i] = 0.0f;
        long long stride = 0;
        const Element<Type>* gate = gate_source(first_row + thread % gate_pieces * width, stride);
        load_flags(first_step);
        sync_block();
        const int stages = ceil_div(maximum(steps - first_step, 0), depth);
        for (int stage = 0; stage < tiling.num_stages - 1; ++stage) {
            if (stage < stages) begin_copy(shared + stage * stage_bytes, first_step + stage * depth, gate, stride);
            cp_async_commit();
        }
        int slot = 0;
        for (int stage = 0; stage < stages; ++stage) {
            cp_async_wait<tiling.num_stages - 2>();
            sync_block();  // the stage is there, and the one before it is read
            const int next = stage + tiling.num_stages - 1;
            const int refilled = slot == 0 ? tiling.num_stages - 1 : slot - 1;
            if (next < stages) begin_copy(shared + refilled * stage_bytes, first_step + next * depth, gate, stride);
            cp_async_commit();
            multiply(shared + slot * stage_bytes);
            slot = slot == tiling.num_stages - 1 ? 0 : slot + 1;
        }
        combine_warps();
        if constexpr (cluster)
            combine_blocks();
        else
            write_out();
        add_partials(in.d_r_partial, in.d_r, Cell::recurrent & ~(Cell::input | inputless), Cell::recurrent, static_cast<Count>(shape.heads) * D * D);
        add_partials(in.d_b_partial, in.d_b, Cell::bias & ~Cell::input, Cell::bias, shape.heads * D);
    }
};

}  // namespace tilesmith
