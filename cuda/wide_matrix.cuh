// A stationary matrix of a warpgroup, in tiles of 64 rows, and its product with a moving one by wgmma: the first groups of 16 k
// in registers, the others in shared memory.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// tiles: of 64 rows, 16 of each warp. k_tiles: of 16 k. columns: of the moving matrix, [k / 8][column][8] in shared memory.
template <class Type, int tiles, int k_tiles, int k_tiles_in_registers, int columns>
struct WideMatrix {
    static constexpr int column_tiles = columns / 8;
    static constexpr int tile_bytes = 64 * 16 * 2;  // of 16 k
    static constexpr int k_tiles_in_shared = k_tiles - k_tiles_in_registers;
    static constexpr int shared_bytes = tiles * k_tiles_in_shared * tile_bytes;  // [tile][k tile][k / 8][row][8]
    static_assert(k_tiles_in_shared >= 0, "no more groups of k in registers than there are");
    using Sums = float[tiles][column_tiles][4];

    const SharedAddress at;
    unsigned words[tiles][maximum(k_tiles_in_registers, 1)][4];

    /// row_of(row): where a row of the warp begins, `row` counted through its 16 of each tile; null for zeros. warp: of the
    /// warpgroup. first_of(k_tile): where in a row the 16 k lie that are multiplied as a group. To be followed by
    /// fence_shared_for_wgmma and a meeting.
    template <class RowOf, class FirstOf>
    TILESMITH_DEVICE void load(int lane, int warp, RowOf row_of, FirstOf first_of) {
        const int g = lane / 4, j = lane % 4;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
            for (int k_tile = 0; k_tile < k_tiles_in_registers; ++k_tile) {
                if (k_tile % 4 == 0) sync_warp();  // no more loads under way than there are registers for
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const unsigned short* row = row_of(tile * 16 + g + i % 2 * 8);
                    words[tile][k_tile][i] = row == nullptr ? 0 : load_global_32(row + first_of(k_tile) + i / 2 * 8 + 2 * j);
                }
            }
            const unsigned short* row = row_of(tile * 16 + lane % 16);
            for (int eight = lane / 16; eight < 2 * k_tiles_in_shared; eight += 2)
                store_shared_128(at + tile * k_tiles_in_shared * tile_bytes + (eight * 64 + warp * 16 + lane % 16) * chunk_bytes,
                                 row == nullptr ? uint4{0, 0, 0, 0}
                                                : load_global_128(row + first_of(k_tiles_in_registers + eight / 2) + eight % 2 * 8));
        }
    }

    /// The same of a matrix whose rows lie along k: source(tile, k_tile) is where row 0 of the warp's 16 of a tile has the first of
    /// 16 k, `along_k` elements from each other; null for zeros.
    template <class Source>
    TILESMITH_DEVICE void load_turned(int lane, int warp, int along_k, Source source) {
        const int g = lane / 4, j = lane % 4;
        const auto turned = [&](int tile, int k_tile, int i) {  // 8 k of 8 rows
            const unsigned short* from = source(tile, k_tile);
            const long long place = (i / 2 * 8 + g) * static_cast<long long>(along_k) + i % 2 * 8 + 2 * j;
            return movmatrix_trans(from == nullptr ? 0 : load_global_32(from + place));
        };
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
#pragma unroll
            for (int k_tile = 0; k_tile < k_tiles_in_registers; ++k_tile) {
                if (k_tile % 4 == 0) sync_warp();  // no more loads under way than there are registers for
#pragma unroll
                for (int i = 0; i < 4; ++i) words[tile][k_tile][i] = turned(tile, k_tile, i);
            }
#pragma unroll 2
            for (int k_tile = 0; k_tile < k_tiles_in_shared; ++k_tile)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    store_shared_32(at + (tile * k_tiles_in_shared + k_tile) * tile_bytes +
                                        (i / 2 * 64 + warp * 16 + i % 2 * 8 + g) * chunk_bytes + 4 * j,
                                    turned(tile, k_tiles_in_registers + k_tile, i));
        }
    }

    /// Before the first part of a product.
    TILESMITH_DEVICE static void begin(Sums& sums) {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) hold(sums[tile]);
    }

    /// Add the product's part of `count` groups of k from `first` on. begins: it is the first. moving: descriptor of the matrix's first k.
    template <int first, int count, bool begins>
    TILESMITH_DEVICE void multiply(Sums& sums, MatrixDescriptor moving) const {
        wgmma_fence();
        const MatrixDescriptor own = matrix_descriptor(uniform(at), 64 * chunk_bytes, 8 * chunk_bytes);
#pragma unroll
        for (int k_tile = first; k_tile < first + count; ++k_tile)
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) add(sums[tile], own, tile, k_tile, moving, begins && k_tile == first);
    }

    /// Begin a tile's product, all of K, and close its group.
    TILESMITH_DEVICE void multiply_tile(float (&sums)[column_tiles][4], int tile, MatrixDescriptor moving) const {
        hold(sums);
        wgmma_fence();
        const MatrixDescriptor own = matrix_descriptor(uniform(at), 64 * chunk_bytes, 8 * chunk_bytes);
#pragma unroll
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) add(sums, own, tile, k_tile, moving, k_tile == 0);
        wgmma_commit();
    }

    /// Wait until it is made.
    TILESMITH_DEVICE static void wait_for_tile(float (&sums)[column_tiles][4]) {
        wgmma_wait<0>();
        hold(sums);
    }

    /// A tile's part of 16 k, which begins its product or is added.
    TILESMITH_DEVICE void add(float (&sums)[column_tiles][4], MatrixDescriptor own, int tile, int k_tile, MatrixDescriptor moving,
                              bool begins) const {
        const MatrixDescriptor b = moving + k_tile * 2 * columns;  // 16 bytes each
        if (k_tile < k_tiles_in_registers)
            wgmma<Type>(sums, words[tile][k_tile < k_tiles_in_registers ? k_tile : 0], b, !begins);
        else
            wgmma<Type>(sums, own + (tile * k_tiles_in_shared + k_tile - k_tiles_in_registers) * (tile_bytes / 16), b, !begins);
    }

    /// Wait until all products are made; the sums are there.
    TILESMITH_DEVICE static void wait(Sums& sums) {
        wgmma_wait<0>();
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) hold(sums[tile]);
    }
};

}  // namespace tilesmith
