// wgmma as the wide schedule has it: of each warpgroup tiles of 64 rows by 32 groups of 16 k, one after another. Clocks of one.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

/// columns: of the moving matrix. held: of 32 groups of k, those whose stationary factor is in registers. swizzled: rows of 64 k,
/// 128 bytes, whose pieces of 16 bytes are permuted, instead of core matrices that lie in a row.
template <int warpgroups, int columns, int tiles, int held, bool swizzled>
struct Warpgroup {
    static constexpr int threads = 128 * warpgroups;
    static constexpr int k_tiles = 32;
    static constexpr int moving_bytes = columns * k_tiles * 32, own_bytes = 16 * 1024;
    static constexpr int shared_bytes = 160 * 1024;
    static constexpr int operations = k_tiles * tiles * warpgroups;
    static_assert(moving_bytes + own_bytes * warpgroups <= shared_bytes, "all fits");

    TILESMITH_DEVICE static MatrixDescriptor at(SharedAddress first, int rows) {
        return swizzled ? matrix_descriptor(first, 16, 1024) | 1ull << 62 : matrix_descriptor(first, rows * 16, 128);
    }
    /// From one group of 16 k to the next, in 16 bytes.
    TILESMITH_DEVICE static int step(int k_tile, int rows) {
        return swizzled ? k_tile / 4 * rows * 8 + k_tile % 4 * 2 : k_tile * 2 * rows;
    }

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const unsigned word = thread_index() & 1;
        for (int i = thread_index(); i < shared_bytes / 16; i += threads) store_shared_128(shared_memory() + 16 * i, uint4{0, 0, 0, 0});
        fence_shared_for_wgmma();
        sync_block();
        const unsigned a[2][4] = {{word, word, word, word}, {word + 1, word, word, word}};
        const SharedAddress moving = (shared_memory() + 1023) / 1024 * 1024;
        const MatrixDescriptor b = at(moving, columns), own = at(uniform(moving + moving_bytes + thread_index() / 128 * own_bytes), 64);
        float d[tiles][columns / 8][4] = {};
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round) {
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) hold(d[tile]);
            wgmma_fence();
#pragma unroll
            for (int k_tile = 0; k_tile < k_tiles; ++k_tile)
#pragma unroll
                for (int tile = 0; tile < tiles; ++tile)
                    if (k_tile < held)
                        wgmma<bf16>(d[tile], a[tile % 2], b + step(k_tile, columns), true);
                    else
                        wgmma<bf16>(d[tile], own + step((k_tile * tiles + tile) % 8, 64), b + step(k_tile, columns), true);
            wgmma_commit();
            wgmma_wait<0>();
        }
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) hold(d[tile]);
        float sum = 0;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int i = 0; i < columns / 8; ++i) sum += d[tile][i][0] + d[tile][i][1] + d[tile][i][2] + d[tile][i][3];
        use(sum);
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
