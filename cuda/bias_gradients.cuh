// The gradients of b: sums over all steps of the gates' gradients, in one order always, so the same bits every time.
#pragma once

#include "pointwise_step.cuh"

namespace tilesmith {

template <class Word>
struct BiasGradientArgumentsOf {
    const Word* d_wx;                // [B, T, G_in, H, D]
    const SumOf<Word>* d_b_partial;  // [P, G_bias without an input, H, D]; null if there are none
    void* d_b;                       // [G_bias, H, D]
    int batch;
    int seq;
    int num_partials;
};
using BiasGradientArguments = BiasGradientArgumentsOf<unsigned short>;

/// A lane has `units` neighbouring units of a gate, a warp every sixteenth step. floats: whether d_b is what sums are made in.
/// parts: blocks of a cluster that share the steps; the first adds what they have.
template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, bool floats, int parts = 1>
struct BiasGradients {
    using Word = Element<Type>;
    using Number = Real<Type>;
    static constexpr int warps = 16, threads = 32 * warps, units = tiling.units;
    static constexpr int bytes = units * static_cast<int>(sizeof(Word)), together = bytes <= 4 ? 12 : 64 / bytes;  // rows on their way
    static constexpr long long row = static_cast<long long>(shape.heads) * shape.head_dim;
    static constexpr int columns = 32 * units;  // of a block
    static constexpr int totals_at = static_cast<int>(sizeof(Number)) * warps * columns;
    static constexpr int shared_bytes = totals_at + (parts > 1 ? 4 * columns : 0);
    static_assert(shape.head_dim % units == 0, "lanes share no head's end");
    static_assert(parts == 1 || (sizeof(Number) == 4 && columns <= 4 * threads), "blocks leave their sums for others as floats");

    const BiasGradientArgumentsOf<Word>& in;
    const int thread = static_cast<int>(thread_index()), lane = thread % 32, warp = thread / 32;
    const int part = parts == 1 ? 0 : static_cast<int>(cluster_rank());
    const long long first_column = static_cast<long long>(block_x()) / parts * columns;

    TILESMITH_DEVICE explicit BiasGradients(const BiasGradientArgumentsOf<Word>& arguments) : in(arguments) {}

    /// Every sixteenth of `count` rows, or of the block's part of them, `stride` elements apart.
    template <class Source>
    TILESMITH_DEVICE void add(Number (&sum)[units], const Source* from, long long count, long long stride) const {
        ElementVector<Source, units> found[together];
        constexpr int step = parts * warps;
        for (long long first = part * warps + warp; first < count; first += step * together) {
#pragma unroll
            for (int i = 0; i < together; ++i)
                if (first + i * step < count) found[i].template load<false>(from + (first + i * step) * stride);
#pragma unroll
            for (int i = 0; i < together; ++i)
                if (first + i * step < count)
#pragma unroll
                    for (int u = 0; u < units; ++u) sum[u] += value(found[i].words[u]);
        }
    }
    TILESMITH_DEVICE static Number value(Number number) { return number; }
    TILESMITH_DEVICE static Number value(unsigned short word) { return to_real<Type>(word); }

    TILESMITH_DEVICE SharedAddress place(int of_warp, int unit) const {
        return shared_memory() + static_cast<int>(sizeof(Number)) * ((of_warp * 32 + lane) * units + unit);
    }

    TILESMITH_DEVICE void run() const {
        const long long at = first_column + lane * units, place_in_row = at % row;
        const int rank = static_cast<int>(at / row);
        const bool real = rank < count_bits(Cell::bias);
        const int gate = nth_bit(Cell::bias, rank);
        Number sum[units];
#pragma unroll
        for (int u = 0; u < units; ++u) sum[u] = 0;
        if (real && has(Cell::input, gate)) {
            const int inputs = count_bits(Cell::input);
            add(sum, in.d_wx + rank_among(Cell::input, gate) * row + place_in_row, static_cast<long long>(in.batch) * in.seq, inputs * row);
        } else if (real) {
            constexpr unsigned inputless = Cell::bias & ~Cell::input;
            add(sum, in.d_b_partial + rank_among(inputless, gate) * row + place_in_row, in.num_partials, count_bits(inputless) * row);
        }
#pragma unroll
        for (int u = 0; u < units; ++u) store_shared(place(warp, u), sum[u]);
        sync_block();
        if (warp == 0) {
#pragma unroll
            for (int u = 0; u < units; ++u) {
                Number total = 0;
                for (int other = 0; other < warps; ++other) total += load_shared(place(other, u));
                if constexpr (parts > 1)
                    store_shared(shared_memory() + totals_at + 4 * (lane * units + u), total);
                else if (real)
                    write(at + u, total);
            }
        }
        if constexpr (parts > 1) add_blocks();
    }

    /// The first block of a cluster adds the totals of all, in their order.
    TILESMITH_DEVICE void add_blocks() const {
        sync_cluster();
        if (part == 0 && thread < columns / 4) {
            float total[4] = {};
#pragma unroll
            for (int other = 0; other < parts; ++other) {
                const float4 four = load_cluster_float4(shared_memory() + totals_at + chunk_bytes * thread, other);
                total[0] += four.x, total[1] += four.y, total[2] += four.z, total[3] += four.w;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (first_column + 4 * thread + i < count_bits(Cell::bias) * row) write(first_column + 4 * thread + i, total[i]);
        }
        sync_cluster();  // nobody leaves while its memory is read
    }

    TILESMITH_DEVICE void write(long long at, Number total) const {
        if constexpr (floats)
            store_element(static_cast<Number*>(in.d_b) + at, total);
        else
            store_element(static_cast<Word*>(in.d_b) + at, to_element<Type>(total));
    }

    TILESMITH_DEVICE static void store_shared(SharedAddress to, Number sum) {
        if constexpr (sizeof(Number) == 8)
            store_shared_double(to, sum);
        else
            store_shared_32(to, __float_as_uint(sum));
    }
    TILESMITH_DEVICE static Number load_shared(SharedAddress from) {
        if constexpr (sizeof(Number) == 8)
            return load_shared_double(from);
        else
            return __uint_as_float(load_shared_32(from));
    }
};

}  // namespace tilesmith
