// A matrix too large for the chip, multiplied each step with a small moving one: part of it stays in registers and in shared
// memory, and the rest comes anew in every step, through a ring of shared memory that is filled ahead, also while the
// moving matrix is still on its way.
//
// A warp has rows and k of its own, in pieces of 16 rows and 64 k, and each of its lanes copies what it will read itself: so
// nobody waits for anybody but for its own copies. Of a row that are 128 bytes, a line of L2.
//
// Lanes: g = lane / 4, j = lane % 4. A lane takes 8 consecutive k, as in stationary_matrix.cuh.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

inline constexpr int piece_k = 64;

/// Begin copying 8 elements of a row to shared memory, where `valid` are left, zeros past its end.
template <int Width>
TILESMITH_DEVICE void copy_row_of_8(SharedAddress to, const unsigned short* row, int valid, CachePolicy policy) {
    if constexpr (Width == 8) {
        cp_async_or_zeros(to, row, valid > 0, policy);
    } else if constexpr (Width == 1) {
        store_shared_128(to, load_row_of_8<1>(row, valid));  // too narrow for an asynchronous copy
    } else {
#pragma unroll
        for (int k = 0; k < 8; k += Width) cp_async_or_zeros<2 * Width>(to + 2 * k, valid > k ? row + k : row, valid > k);
    }
}

/// tiles: of 16 rows; pairs: of k-tiles, 64 k. Of the tiles x pairs pieces of a warp, `in_registers` stay in registers and
/// `stationary` in shared memory, the last ones; of the others, which come anew for every product, L2 is to keep `kept`.
/// ring: stages for these.
struct StreamedPieces {
    int tiles, pairs, in_registers, stationary, kept, ring;
};

template <class Type, StreamedPieces p, int column_tiles>
struct StreamedMatrix {
    static constexpr int pieces = p.tiles * p.pairs;
    static constexpr int resident = p.in_registers + p.stationary;
    static constexpr int streamed = pieces - resident;
    static constexpr int stages = minimum(p.ring, streamed);
    static constexpr int row_bytes = 32 * chunk_bytes;  // a chunk of each lane
    static constexpr int piece_bytes = 4 * row_bytes;
    static constexpr int shared_bytes = (p.stationary + stages) * piece_bytes;  // per warp

    static_assert(p.in_registers >= 0 && p.stationary >= 0 && resident <= pieces, "no more pieces stay than there are");
    static_assert(streamed == 0 || p.ring >= 2, "the ring needs a stage to read and a stage to fill");
    static_assert(p.kept <= streamed, "L2 keeps no more than comes through it");

    using Sums = float[p.tiles][column_tiles][4];
    using Moving = uint4[2][column_tiles];  // 8 k of a sequence, of either k-tile of a pair

    unsigned words[p.in_registers > 0 ? p.in_registers : 1][2][2][4];
    SharedAddress ring, fixed;  // this lane's part
    CachePolicy keep, pass;
    int stage = 0;                      // of the ring, the one that is read next,
    int next_tile = 0, next_pair = 0;  // and what is copied next
    int next = 0;

    /// `at`: the warp's shared memory.
    TILESMITH_DEVICE void prepare(SharedAddress at, int lane) {
        ring = at + lane * chunk_bytes;
        fixed = ring + stages * piece_bytes;
        keep = evict_last();
        pass = evict_first();
    }

    /// Whether L2 is to keep a piece that is streamed: those are spread evenly.
    TILESMITH_DEVICE static bool is_kept(int piece) {
        if constexpr (p.kept == 0) return false;
        if constexpr (p.kept == streamed) return true;
        return (piece + 1) * p.kept / streamed != piece * p.kept / streamed;
    }

    /// Load what stays. load(tile, k_tile, upper): 8 words of row g (upper = 0) or g + 8 (upper = 1) of a tile, from
    /// k = 32 * k_tile + 8 * j on. copy(to, tile, k_tile, upper, policy): begins copying them.
    template <class Load, class Copy>
    TILESMITH_DEVICE void load_resident(Load load, Copy copy) {
#pragma unroll 1
        for (int i = 0; i < p.stationary; ++i) copy_piece(fixed + i * piece_bytes, (streamed + i) % p.tiles, (streamed + i) / p.tiles, pass, copy);
        cp_async_commit();
#pragma unroll
        for (int i = 0; i < p.in_registers; ++i) {
            const int piece = streamed + p.stationary + i;
            sync_warp();  // no more loads under way than there are registers for
#pragma unroll
            for (int k_tile = 0; k_tile < 2; ++k_tile)
                arrange(words[i][k_tile], load(piece % p.tiles, piece / p.tiles * 2 + k_tile, 0),
                        load(piece % p.tiles, piece / p.tiles * 2 + k_tile, 1));
        }
        cp_async_wait<0>();
    }

    /// Begin to fill the ring. Each of its stages is a group of copies.
    template <class Copy>
    TILESMITH_DEVICE void begin(Copy copy) {
#pragma unroll 1
        for (int i = 0; i < stages; ++i) refill(ring + i * piece_bytes, true, copy);
    }

    template <class Copy>
    TILESMITH_DEVICE static void copy_piece(SharedAddress to, int tile, int pair, CachePolicy policy, Copy copy) {
#pragma unroll
        for (int k_tile = 0; k_tile < 2; ++k_tile)
#pragma unroll
            for (int upper = 0; upper < 2; ++upper) copy(to + (2 * k_tile + upper) * row_bytes, tile, 2 * pair + k_tile, upper, policy);
    }

    template <class Copy>
    TILESMITH_DEVICE void refill(SharedAddress to, bool wanted, Copy copy) {
        if (wanted) copy_piece(to, next_tile, next_pair, is_kept(next) ? keep : pass, copy);
        cp_async_commit();
        next = next == streamed - 1 ? 0 : next + 1;
        next_tile = next == 0 || next_tile == p.tiles - 1 ? 0 : next_tile + 1;
        next_pair = next == 0 ? 0 : next_tile == 0 ? next_pair + 1 : next_pair;
    }

    /// sums = this matrix times the moving one. last: nothing is to be copied for another product. take(moving, pair): called
    /// for each pair in turn.
    template <class Take, class Copy>
    TILESMITH_DEVICE void multiply(Sums& sums, bool last, Take take, Copy copy) {
#pragma unroll
        for (int tile = 0; tile < p.tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[tile][column_tile][i] = 0.0f;
        constexpr int in_turn = (pieces - p.in_registers) / p.tiles;  // pairs of which nothing is in registers
#pragma unroll 1
        for (int pair = 0; pair < in_turn; ++pair) add_pair(sums, pair, last, take, copy);
#pragma unroll
        for (int pair = in_turn; pair < p.pairs; ++pair) add_pair(sums, pair, last, take, copy);
    }

    template <class Take, class Copy>
    TILESMITH_DEVICE void add_pair(Sums& sums, int pair, bool last, Take take, Copy copy) {
        Moving moving;
        take(moving, pair);
#pragma unroll
        for (int tile = 0; tile < p.tiles; ++tile) {
            const int piece = pair * p.tiles + tile;
            if (piece >= pieces - p.in_registers) {
                const int i = piece - (pieces - p.in_registers);
                add(sums[tile], words[p.in_registers > 0 ? i : 0], moving);
            } else {
                add_shared(sums[tile], piece, last, moving, copy);
            }
        }
    }

    template <class Copy>
    TILESMITH_DEVICE void add_shared(float (&sums)[column_tiles][4], int piece, bool last, const Moving& moving, Copy copy) {
        const bool comes = streamed > 0 && piece < streamed;
        if (comes) cp_async_wait<maximum(stages - 1, 0)>();
        const SharedAddress from = comes ? ring + stage * piece_bytes : fixed + (piece - streamed) * piece_bytes;
        unsigned a[2][2][4];
#pragma unroll
        for (int k_tile = 0; k_tile < 2; ++k_tile)
            arrange(a[k_tile], load_shared_128(from + 2 * k_tile * row_bytes), load_shared_128(from + (2 * k_tile + 1) * row_bytes));
        add(sums, a, moving);
        if (comes) {
            refill(from, !last || piece + stages < streamed, copy);
            stage = stage == stages - 1 ? 0 : stage + 1;
        }
    }

    /// What two matrix instructions take, from the words of row g and of row g + 8.
    TILESMITH_DEVICE static void arrange(unsigned (&a)[2][4], uint4 low, uint4 high) {
        a[0][0] = low.x, a[0][1] = high.x, a[0][2] = low.y, a[0][3] = high.y;
        a[1][0] = low.z, a[1][1] = high.z, a[1][2] = low.w, a[1][3] = high.w;
    }

    TILESMITH_DEVICE static void add(float (&sums)[column_tiles][4], const unsigned (&a)[2][2][4], const Moving& moving) {
#pragma unroll
        for (int k_tile = 0; k_tile < 2; ++k_tile)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                    const uint4& b = moving[k_tile][column_tile];
                    mma_m16n8k16<Type>(sums[column_tile], a[k_tile][half], half == 0 ? b.x : b.z, half == 0 ? b.y : b.w,
                                       sums[column_tile]);
                }
    }
};

}  // namespace tilesmith
