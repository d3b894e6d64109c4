// A matrix that never leaves the chip, multiplied each step with a small moving one: tiles of 16 x 32 of the
// stationary matrix lie in a warp's registers and, where those do not suffice, in shared memory; the moving matrix lies
// in shared memory in a layout that 32 lanes read without bank conflicts.
//
// K may be permuted as long as both matrices agree: a lane takes 8 consecutive k (16 bytes), which serve two
// instructions of depth 16. Lanes: g = lane / 4, j = lane % 4.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// The moving matrix in shared memory: [k / 8][sequence, permuted][8] 16-bit words, for `rows` sequences.
template <int rows>
struct MovingLayout {
    TILESMITH_DEVICE static constexpr int bytes(int k) { return k / 8 * rows * chunk_bytes; }

    /// Where words k = 8 * octet .. of a sequence lie. The chunks that 8 lanes load at a time lie in different banks: of
    /// four octets and two sequences, or of eight octets of one sequence where there are 4.
    TILESMITH_DEVICE static int offset(int octet, int row) {
        const int permuted = rows == 4 ? row ^ (octet / 2 % 4) : row ^ (2 * (octet % 4));
        return (octet * rows + permuted) * chunk_bytes;
    }

    /// From a group of 32 k to another an even number of groups away, and from the first tile of 8 columns to another.
    TILESMITH_DEVICE static constexpr int step(int groups, int column_tile) {
        return (4 * rows * groups + 8 * column_tile) * chunk_bytes;
    }
};

/// A moving matrix that lies as [sequence][k], in rows of `row_bytes`: what was copied from an array of states. Where
/// there are more than 4 sequences, lanes meet in banks.
template <int rows, int row_bytes>
struct RowLayout {
    TILESMITH_DEVICE static int offset(int octet, int row) { return row * row_bytes + octet * chunk_bytes; }

    TILESMITH_DEVICE static constexpr int step(int groups, int column_tile) {
        return 4 * groups * chunk_bytes + 8 * column_tile * row_bytes;
    }
};

/// A warp's part of the stationary matrix: `tiles` of 16 rows, `groups` of 32 k, of which `register_groups` stay in
/// registers and the others in shared memory. `chains` accumulators per tile work independently.
template <class Type, int tiles, int groups, int register_groups, int rows, int chains>
struct StationaryMatrix {
    static constexpr bool sparse = rows == 4;  // these take the even columns of a tile of 8
    static constexpr int column_tiles = sparse ? 1 : rows / 8;
    static constexpr int shared_groups = groups - register_groups;
    static constexpr int shared_bytes = shared_groups * tiles * 2 * 32 * chunk_bytes;  // per warp

    static_assert(register_groups >= 0 && register_groups <= groups, "more register groups than there are groups");

    using Sums = float[tiles][column_tiles][4];

    // Where only the even columns are wanted, the lanes of odd columns may read another group of k instead of the same one
    // again: half as many loads. The product with that group then stands in the odd columns, of accumulators of its own.
    static constexpr bool paired = sparse && groups >= 2 && chains >= 2;
    static_assert(!paired || chains / 2 <= groups / 2 * 2, "an accumulator of odd groups would get no product");

    unsigned words[tiles][register_groups > 0 ? register_groups : 1][2][4];
    SharedAddress shared;

    /// Load the matrix. `at`: this warp's shared memory. row(tile, group, upper): 8 words of row g (upper = 0) or
    /// g + 8 (upper = 1) of a tile, from k = 32 * group + 8 * j on.
    template <class Row>
    TILESMITH_DEVICE void load(SharedAddress at, int lane, Row row) {
        shared = at + lane * chunk_bytes;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int group = 0; group < groups; ++group) {
                const uint4 low = row(tile, group, 0), high = row(tile, group, 1);
                if (group < register_groups) {
                    unsigned(&w)[2][4] = words[tile][group < register_groups ? group : 0];
                    w[0][0] = low.x, w[0][1] = high.x, w[0][2] = low.y, w[0][3] = high.y;
                    w[1][0] = low.z, w[1][1] = high.z, w[1][2] = low.w, w[1][3] = high.w;
                } else {
                    const SharedAddress to = shared + shared_offset(tile, group);
                    store_shared_128(to, uint4{low.x, high.x, low.y, high.y});
                    store_shared_128(to + 32 * chunk_bytes, uint4{low.z, high.z, low.w, high.w});
                }
            }
    }

    TILESMITH_DEVICE static constexpr int shared_offset(int tile, int group) {
        return ((group - register_groups) * tiles + tile) * 64 * chunk_bytes;
    }

    /// Which accumulators a group's half adds to: those of odd groups are apart where groups are read in pairs.
    TILESMITH_DEVICE static constexpr int chain_of(int group, int half) {
        return paired ? group % 2 + 2 * (turn(group, half) % (chains / 2)) : turn(group, half) % chains;
    }

    /// How many matrix instructions come before, of those of even or odd groups where groups are read in pairs.
    TILESMITH_DEVICE static constexpr int turn(int group, int half) { return 2 * (paired ? group / 2 : group) + half; }

    TILESMITH_DEVICE static constexpr bool begins_chain(int group, int half) {
        return turn(group, half) < (paired ? chains / 2 : chains);
    }

    /// Where a lane finds its words of the moving matrix, whose part for this warp begins at octet `first_octet` of k, a
    /// multiple of 4.
    template <class Layout>
    struct Places {
        SharedAddress even, odd;
        SharedAddress last;  // of an odd number of groups: it has no other to be read with

        TILESMITH_DEVICE Places(SharedAddress moving, int first_octet, int lane) {
            const auto begin = [&](int octet) {
                return moving + Layout::offset(first_octet + octet, sparse ? lane / 8 : lane / 4);
            };
            even = begin(lane % 4 + (paired ? lane / 4 % 2 * 4 : 0));
            odd = begin(lane % 4 + 4);
            last = begin(lane % 4);
        }

        /// 16 bytes for a group that is read, of a tile of 8 columns.
        TILESMITH_DEVICE SharedAddress at(int group, int column_tile) const {
            const SharedAddress first = paired && group == groups - 1 ? last : group % 2 == 0 ? even : odd;
            return first + Layout::step(group / 2 * 2, column_tile);
        }
    };

    static constexpr int groups_per_read = paired ? 2 : 1;
    static constexpr int reads = ceil_div(groups, groups_per_read);

    /// sums = this matrix times the moving one in shared memory. start(tile, column_tile, i): what the sums begin with.
    /// With 4 sequences the sums of odd i mean nothing.
    template <class Layout = MovingLayout<rows>, class Start>
    TILESMITH_DEVICE void multiply(Sums& sums, SharedAddress moving, int first_octet, int lane, Start start) const {
        const Places<Layout> places(moving, first_octet, lane);
        const auto read = [&](int group, uint4(&b)[column_tiles]) {
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                b[column_tile] = load_shared_128(places.at(group, column_tile));
        };
        product(sums, read, start);
    }

    /// The same where the moving matrix comes from read(group, words), which is called for each group that is read.
    template <class Read, class Start>
    TILESMITH_DEVICE void product(Sums& sums, Read read, Start start) const {
        float partial[chains][tiles][column_tiles][4];
        uint4 b[column_tiles];
#pragma unroll
        for (int group = 0; group < groups; ++group) {
            if (group % groups_per_read == 0) read(group, b);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int tile = 0; tile < tiles; ++tile) {
                    unsigned a[4];
                    fetch(a, tile, group, half);
#pragma unroll
                    for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                        float(&d)[4] = partial[chain_of(group, half)][tile][column_tile];
                        const unsigned b0 = half == 0 ? b[column_tile].x : b[column_tile].z;
                        const unsigned b1 = half == 0 ? b[column_tile].y : b[column_tile].w;
                        if (begins_chain(group, half)) {
                            float first[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                            for (int i = 0; i < 4; ++i)
                                if (group == 0 && half == 0) first[i] = start(tile, column_tile, i);
                            mma_m16n8k16<Type>(d, a, b0, b1, first);
                        } else {
                            mma_m16n8k16<Type>(d, a, b0, b1, d);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float sum = partial[0][tile][column_tile][i];
#pragma unroll
                    for (int chain = 1; chain < minimum(chains, 2 * groups); ++chain)
                        sum += partial[chain][tile][column_tile][paired && chain % 2 == 1 ? i ^ 1 : i];
                    sums[tile][column_tile][i] = sum;
                }
    }

    TILESMITH_DEVICE void fetch(unsigned (&a)[4], int tile, int group, int half) const {
        if (group < register_groups) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = words[tile][group < register_groups ? group : 0][half][i];
        } else {
            const uint4 w = load_shared_128(shared + shared_offset(tile, group) + half * 32 * chunk_bytes);
            a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
        }
    }
};

}  // namespace tilesmith
