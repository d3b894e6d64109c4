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
template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, bool floats>
struct BiasGradients {
    using Word = Element<Type>;
    using Number = Real<Type>;
    static constexpr int warps = 16, threads = 32 * warps, units = tiling.units, together = 8;
    static constexpr long long row = static_cast<long long>(shape.heads) * shape.head_dim;
    static constexpr int shared_bytes = static_cast<int>(sizeof(Number)) * warps * 32 * units;
    static_assert(shape.head_dim % units == 0, "lanes share no head's end");

    const BiasGradientArgumentsOf<Word>& in;
    const int lane = static_cast<int>(thread_index()) % 32, warp = static_cast<int>(thread_index()) / 32;

    TILESMITH_DEVICE explicit BiasGradients(const BiasGradientArgumentsOf<Word>& arguments) : in(arguments) {}

    /// Every sixteenth of `count` rows, `stride` elements apart.
    template <class Source>
    TILESMITH_DEVICE void add(Number (&sum)[units], const Source* from, long long count, long long stride) const {
        ElementVector<Source, units> found[together];
        for (long long first = warp; first < count; first += warps * together) {
#pragma unroll
            for (int i = 0; i < together; ++i)
                if (first + i * warps < count) found[i].template load<false>(from + (first + i * warps) * stride);
#pragma unroll
            for (int i = 0; i < together; ++i)
                if (first + i * warps < count)
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
        const long long at = (static_cast<long long>(block_x()) * 32 + lane) * units, place_in_row = at % row;
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
        if (warp != 0 || !real) return;
#pragma unroll
        for (int u = 0; u < units; ++u) {
            Number total = 0;
            for (int other = 0; other < warps; ++other) total += load_shared(place(other, u));
            if constexpr (floats)
                store_element(static_cast<Number*>(in.d_b) + at + u, total);
            else
                store_element(static_cast<Word*>(in.d_b) + at + u, to_element<Type>(total));
        }
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
