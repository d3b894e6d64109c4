// Sums of warps that share a group of units, each with a part of K, added up through shared memory.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// Of each part but the first, in shared memory: [part - 1][unit warp][tile][column tile][lane], 16 bytes each. Two
/// buffers, used in turn, suffice where the warps of all parts meet in every step.
template <class Matrix, int tiles, int unit_warps, int k_split>
struct PartialSums {
    static constexpr int column_tiles = Matrix::column_tiles;
    static constexpr int part_bytes = unit_warps * tiles * column_tiles * 32 * chunk_bytes;
    static constexpr int bytes = (k_split - 1) * part_bytes;

    /// Add the other parts' sums to those of part 0, in a fixed order; meet() is where the warps of all parts meet. Returns
    /// true in the warp that goes on with the sums.
    template <class Meet>
    TILESMITH_DEVICE static bool combine(typename Matrix::Sums& sums, SharedAddress at, int unit_warp, int part, int lane,
                                         Meet meet) {
        if constexpr (k_split == 1) return true;
        const SharedAddress mine = at + (unit_warp * tiles * column_tiles * 32 + lane) * chunk_bytes;
        if (part > 0)
            for_each_tile([&](int tile, int column_tile, int offset) {
                const float(&s)[4] = sums[tile][column_tile];
                store_shared_float4(mine + (part - 1) * part_bytes + offset, float4{s[0], s[1], s[2], s[3]});
            });
        meet();
        if (part > 0) return false;
#pragma unroll
        for (int other = 0; other < k_split - 1; ++other)
            for_each_tile([&](int tile, int column_tile, int offset) {
                const float4 s = load_shared_float4(mine + other * part_bytes + offset);
                float(&sum)[4] = sums[tile][column_tile];
                sum[0] += s.x, sum[1] += s.y, sum[2] += s.z, sum[3] += s.w;
            });
        return true;
    }

    template <class Function>
    TILESMITH_DEVICE static void for_each_tile(Function function) {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                function(tile, column_tile, (tile * column_tiles + column_tile) * 32 * chunk_bytes);
    }
};

}  // namespace tilesmith
