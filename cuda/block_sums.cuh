// Sums of the warps of a block, each of a part of K, added up by other warps than those that made them: through shared
// memory, in an order in which both write and read without bank conflicts.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// In shared memory: [part][unit warp][8 rows of a tile][plane][lane], floats, where a plane is one column of each lane: the
/// even or the odd columns of a tile of 8. `tiles` of 16 rows a warp, as Matrix has them. Two buffers, used in turn, suffice
/// where all warps meet in every step.
template <class Matrix, int tiles, int unit_warps, int k_split>
struct BlockSums {
    static constexpr int planes = Matrix::half_filled ? 1 : 2 * Matrix::column_tiles;
    static constexpr int plane_bytes = 32 * 4;
    static constexpr int warp_bytes = 2 * tiles * planes * plane_bytes;
    static constexpr int part_bytes = unit_warps * warp_bytes;
    static constexpr int bytes = k_split * part_bytes;

    /// Store a warp's sums; to be followed by a meeting of all warps.
    TILESMITH_DEVICE static void store(const typename Matrix::Sums& sums, SharedAddress at, int unit_warp, int part, int lane) {
        store_tiles<tiles>(sums, 0, at, unit_warp, part, lane);
    }

    /// The same of `count` tiles, from `first_tile` on.
    template <int count>
    TILESMITH_DEVICE static void store_tiles(const float (&sums)[count][Matrix::column_tiles][4], int first_tile, SharedAddress at,
                                             int unit_warp, int part, int lane) {
        const SharedAddress mine = at + part * part_bytes + unit_warp * warp_bytes + 4 * lane;
#pragma unroll
        for (int tile = 0; tile < count; ++tile)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper)
#pragma unroll
                for (int plane = 0; plane < planes; ++plane)
                    store_shared_32(mine + ((2 * (first_tile + tile) + upper) * planes + plane) * plane_bytes,
                                    __float_as_uint(sums[tile][plane / 2][2 * upper + plane % 2]));
    }

    /// The sum of all parts, or of `count` from `first_part` on, always in the same order, of the tile row g (upper = 0) or g + 8
    /// (upper = 1) of a unit warp.
    template <int count = k_split>
    TILESMITH_DEVICE static float sum(SharedAddress at, int unit_warp, int tile, int upper, int plane, int lane, int first_part = 0) {
        const SharedAddress first = at + unit_warp * warp_bytes + ((2 * tile + upper) * planes + plane) * plane_bytes + 4 * lane;
        float parts[count];
#pragma unroll
        for (int part = 0; part < count; ++part)
            parts[part] = __uint_as_float(load_shared_32(first + (first_part + part) * part_bytes));
#pragma unroll
        for (int distance = 1; distance < count; distance *= 2)
#pragma unroll
            for (int part = 0; part < count; part += 2 * distance)
                if (part + distance < count) parts[part] += parts[part + distance < count ? part + distance : 0];
        return parts[0];
    }
};

}  // namespace tilesmith
