// The gradients of R and b after the last step: for every head and gate the product of the gates' gradients with the
// previous h over all steps of all sequences, and their sum. Both arrays are read once and as they lie.
//
// A block takes one head, a tile of the product (rows: gates' units, columns: previous units) and all steps or a part of
// them, which travel through a ring of stages in shared memory. The sum is one more column, of a matrix of ones. Warps
// may share a tile, each with some of a stage's steps; their sums are added in a fixed order: the same bits every time.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// The arrays of the product. Steps of all sequences are one axis: B T of them.
struct ParameterGradientArguments {
    const unsigned short* d_wx;     // [B, T, G_in, H, D]
    const unsigned short* d_rest;   // [G - G_in, B, T, H, D], of the gates without an input, or null if there is none
    const unsigned short* hidden;   // [B, T, H, D]
    const unsigned short* initial;  // [B, H, D]: h before the first step, or null: zeros
    void* d_r;                      // [G_rec, H, D, D]; of more than one part: floats [parts, G_rec, H, D, D]
    void* d_b;                      // [G_bias, H, D] likewise, or null if no gate has a bias
    int batch;
    int seq;
    int parts;  // of the steps
};

/// kernelgen/parameter_gradients.py chooses.
struct ParameterGradientTiling {
    int row_warps;
    int warp_tiles;   // of 16 rows, per warp
    int columns;      // a multiple of 16
    int step_groups;  // warps that share a tile
    int depth;        // steps of a stage
    int stages;
    bool split;       // there may be more than one part
};

template <class Cell, class Type, FixedShape shape, ParameterGradientTiling tiling>
struct ParameterGradients {
    // ---- sizes ----
    static constexpr int D = shape.head_dim;
    static constexpr int padded = ceil_div(D, 16) * 16;
    static constexpr int width = vector_width(D);
    static constexpr unsigned members = Cell::recurrent | Cell::bias;
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int recurrent_gates = count_bits(Cell::recurrent);
    static constexpr int bias_gates = count_bits(Cell::bias);

    static constexpr int threads = 32 * tiling.row_warps * tiling.step_groups;
    static constexpr int rows = 16 * tiling.row_warps * tiling.warp_tiles;  // of the product, per block
    static constexpr int columns = tiling.columns;
    static constexpr int column_tiles = columns / 8;
    static constexpr int row_blocks = ceil_div(count_bits(members) * padded, rows);
    static constexpr int column_blocks = ceil_div(padded, columns);
    static constexpr int blocks = row_blocks * column_blocks;  // per head

    static constexpr int depth = tiling.depth;
    static constexpr int gate_row_bytes = (rows / 8 | 1) * chunk_bytes;  // odd: no bank conflicts
    static constexpr int hidden_row_bytes = (columns / 8 | 1) * chunk_bytes;
    static constexpr int hidden_at = depth * gate_row_bytes;
    static constexpr int stage_bytes = hidden_at + depth * hidden_row_bytes;
    static constexpr int warp_sums = tiling.warp_tiles * (column_tiles + 1);  // float4 a lane
    static constexpr int exchange_bytes = (tiling.step_groups - 1) * tiling.row_warps * warp_sums * 32 * chunk_bytes;
    static constexpr int shared_bytes = maximum(tiling.stages * stage_bytes, exchange_bytes);

    // Each thread copies the same columns of several steps.
    static constexpr int gate_pieces = rows / width;
    static constexpr int hidden_pieces = columns / width;
    static_assert(gate_pieces <= threads && hidden_pieces <= threads, "too few threads to copy a step");
    static_assert(columns % 16 == 0, "columns come in pairs of matrix tiles");
    static_assert(depth % (16 * tiling.step_groups) == 0, "every warp takes as many steps of a stage");

    // ---- the thread's place ----
    const ParameterGradientArguments& in;
    const int thread = static_cast<int>(thread_index());
    const int lane = thread % 32;
    const int row_warp = thread / 32 % tiling.row_warps;
    const int step_group = thread / 32 / tiling.row_warps;
    const int head = static_cast<int>(block_x());
    const int part = static_cast<int>(block_y()) / blocks;
    const int first_row = static_cast<int>(block_y()) % blocks / column_blocks * rows;
    const int first_column = static_cast<int>(block_y()) % column_blocks * columns;
    const SharedAddress shared = shared_memory();
    const int part_steps = ceil_div(ceil_div(in.batch * in.seq, in.parts), depth) * depth;
    const int first_step = part * part_steps;
    const int steps = minimum(first_step + part_steps, in.batch * in.seq);  // the end of them

    float sums[tiling.warp_tiles][column_tiles + 1][4];  // the last column tile is the sum

    // ---- from global to shared memory ----

    TILESMITH_DEVICE static void copy(SharedAddress to, const unsigned short* from) {
        if constexpr (width == 1)
            store_shared_16(to, load_global_16(from));
        else
            cp_async<2 * width>(to, from);
    }
    TILESMITH_DEVICE static void clear(SharedAddress to) {
#pragma unroll
        for (int word = 0; word < width; ++word) store_shared_16(to + 2 * word, 0);
    }

    /// The gradients of a gate's unit at step 0, and how far it is to the next step. Null for padding.
    TILESMITH_DEVICE const unsigned short* gate_source(int row, long long& stride) const {
        const int index = row / padded, unit = row % padded;
        if (index >= count_bits(members) || unit >= D) return nullptr;
        const int gate = nth_bit(members, index);
        const bool input = has(Cell::input, gate);
        stride = static_cast<long long>(shape.heads) * D * (input ? input_gates : 1);
        const unsigned short* base = in.d_wx + static_cast<long long>(rank_among(Cell::input, gate)) * shape.heads * D;
        if (!input)
            base = in.d_rest + static_cast<long long>(rank_among(~Cell::input, gate)) * in.batch * in.seq * shape.heads * D;
        return base + head * D + unit;
    }

    /// Begin copying the stage of `depth` steps from `step` on; zeros beyond the last.
    TILESMITH_DEVICE void begin_copy(SharedAddress stage, int step, const unsigned short* gate, long long stride) const {
        constexpr int gate_steps = threads / gate_pieces, hidden_steps = threads / hidden_pieces;
        const int gate_column = thread % gate_pieces * width;
        if (gate != nullptr && thread < gate_steps * gate_pieces)
#pragma unroll
            for (int k = 0; k < depth; k += gate_steps) {
                const int row = k + thread / gate_pieces;
                if (depth % gate_steps != 0 && row >= depth) break;
                const SharedAddress to = stage + row * gate_row_bytes + 2 * gate_column;
                if (step + row < steps)
                    copy(to, gate + (step + row) * stride);
                else
                    clear(to);
            }
        const int hidden_column = thread % hidden_pieces * width;
        const int unit = first_column + hidden_column;
        if (unit < D && thread < hidden_steps * hidden_pieces)
#pragma unroll
            for (int k = 0; k < depth; k += hidden_steps) {
                const int row = k + thread / hidden_pieces;
                if (depth % hidden_steps != 0 && row >= depth) break;
                const SharedAddress to = stage + hidden_at + row * hidden_row_bytes + 2 * hidden_column;
                const int at = step + row;
                const bool begins = at % in.seq == 0;
                if (at >= steps || (begins && in.initial == nullptr))
                    clear(to);
                else if (begins)
                    copy(to, in.initial + (static_cast<long long>(at / in.seq) * shape.heads + head) * D + unit);
                else
                    copy(to, in.hidden + (static_cast<long long>(at - 1) * shape.heads + head) * D + unit);
            }
    }

    // ---- the product ----

    TILESMITH_DEVICE void multiply(SharedAddress stage) {
        const unsigned one = pack<Type>(1.0f, 1.0f);
#pragma unroll
        for (int slice = 0; slice < depth / 16; slice += tiling.step_groups) {
            const int k = 16 * (slice + step_group);
            unsigned b[column_tiles][2];
#pragma unroll
            for (int pair = 0; pair < column_tiles / 2; ++pair) {
                unsigned four[4];  // lanes 0-7, 8-15: rows k and k + 8 of the first tile; 16 and on: of the second
                ldmatrix_x4_trans(four, stage + hidden_at + (k + lane % 16) * hidden_row_bytes + (2 * pair + lane / 16) * chunk_bytes);
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
                if (bias_gates > 0) mma_m16n8k16<Type>(sums[tile][column_tiles], a, one, one, sums[tile][column_tiles]);
            }
        }
    }

    /// Calls function(sums of a tile, where step group `group` (1 and up) leaves them in shared memory).
    template <class Function>
    TILESMITH_DEVICE void for_each_sum(int group, Function function) {
        const int first = ((group - 1) * tiling.row_warps + row_warp) * warp_sums;
#pragma unroll
        for (int tile = 0; tile < tiling.warp_tiles; ++tile)
#pragma unroll
            for (int n = 0; n <= column_tiles; ++n)
                function(sums[tile][n], shared + ((first + tile * (column_tiles + 1) + n) * 32 + lane) * chunk_bytes);
    }

    /// Where warps share a tile: add the sums of all to those of the first. Returns true in that one.
    TILESMITH_DEVICE bool combine() {
        if constexpr (tiling.step_groups == 1) return true;
        sync_block();  // the stages are read
        if (step_group > 0)
            for_each_sum(step_group, [](const float(&sum)[4], SharedAddress at) {
                store_shared_float4(at, float4{sum[0], sum[1], sum[2], sum[3]});
            });
        sync_block();
        if (step_group > 0) return false;
        for (int group = 1; group < tiling.step_groups; ++group)
            for_each_sum(group, [](float(&sum)[4], SharedAddress at) {
                const float4 other = load_shared_float4(at);
                sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
            });
        return true;
    }

    /// Write element `at` of one of the results, of `size` elements.
    TILESMITH_DEVICE void write(void* results, long long size, long long at, float value) const {
        if constexpr (tiling.split)
            store_global_float(static_cast<float*>(results) + part * size + at, value);
        else
            store_global_16(static_cast<unsigned short*>(results) + at, to_16<Type>(value));
    }

    TILESMITH_DEVICE void write_out() const {
        constexpr long long units = static_cast<long long>(shape.heads) * D;
        const int g = lane / 4, j = lane % 4;
#pragma unroll
        for (int tile = 0; tile < tiling.warp_tiles; ++tile)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) {
                const int row = first_row + 16 * (row_warp * tiling.warp_tiles + tile) + 8 * upper + g;
                const int index = row / padded, unit = row % padded;
                if (index >= count_bits(members) || unit >= D) continue;
                const int gate = nth_bit(members, index);
                if (has(Cell::recurrent, gate)) {
                    const long long plane = rank_among(Cell::recurrent, gate) * shape.heads + head;
                    const long long to = (plane * D + unit) * D;
#pragma unroll
                    for (int n = 0; n < column_tiles; ++n)
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int p = first_column + 8 * n + 2 * j + i;
                            if (p < D) write(in.d_r, recurrent_gates * units * D, to + p, sums[tile][n][2 * upper + i]);
                        }
                }
                if (has(Cell::bias, gate) && first_column == 0 && j == 0) {
                    const long long plane = rank_among(Cell::bias, gate) * shape.heads + head;
                    write(in.d_b, bias_gates * units, plane * D + unit, sums[tile][column_tiles][2 * upper]);
                }
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
        const unsigned short* gate = gate_source(first_row + thread % gate_pieces * width, stride);
        sync_block();
        const int stages = ceil_div(maximum(steps - first_step, 0), depth);
        for (int stage = 0; stage < tiling.stages - 1; ++stage) {
            if (stage < stages) begin_copy(shared + stage * stage_bytes, first_step + stage * depth, gate, stride);
            cp_async_commit();
        }
        int slot = 0;
        for (int stage = 0; stage < stages; ++stage) {
            cp_async_wait<tiling.stages - 2>();
            sync_block();  // the stage is there, and the one before it is read
            const int next = stage + tiling.stages - 1;
            const int refilled = slot == 0 ? tiling.stages - 1 : slot - 1;
            if (next < stages) begin_copy(shared + refilled * stage_bytes, first_step + next * depth, gate, stride);
            cp_async_commit();
            multiply(shared + slot * stage_bytes);
            slot = slot == tiling.stages - 1 ? 0 : slot + 1;
        }
        if (combine()) write_out();
    }
};

}  // namespace tilesmith
