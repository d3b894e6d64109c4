// A matrix that never leaves the chip, multiplied each step with a small moving one: tiles of 16 rows by 64 bytes of k of the
// stationary matrix lie in a warp's registers and, where those do not suffice, in shared memory; the moving matrix lies
// in shared memory in a layout that 32 lanes read without bank conflicts.
//
// K may be permuted as long as both matrices agree: a lane takes 16 bytes of consecutive k, 8 elements of 16 bits or 4 floats,
// which serve two instructions (factors.cuh). Lanes: g = lane / 4, j = lane % 4.
#pragma once

#include "factors.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// k of a k-tile: 16 bytes of each of 4 lanes.
template <class Type>
inline constexpr int k_tile_depth = 4 * chunk_elements<Type>;

/// The moving matrix in shared memory: [k-chunk][sequence, permuted], chunks of 16 bytes, for `rows` sequences.
template <int rows, class Type = bf16>
struct MovingLayout {
    TILESMITH_DEVICE static constexpr int bytes(int k) { return k / chunk_elements<Type> * rows * chunk_bytes; }

    /// Where k of a sequence lies.
    TILESMITH_DEVICE static int place(int k, int row) {
        return offset(k / chunk_elements<Type>, row) + element_bytes<Type> * (k % chunk_elements<Type>);
    }

    /// Where a k-chunk of a sequence lies. The chunks that 8 lanes load at a time lie in different banks: of
    /// four k-chunks and two sequences, or of eight k-chunks of one sequence where there are 4.
    TILESMITH_DEVICE static int offset(int k_chunk, int row) {
        const int permuted = rows == 4 ? row ^ (k_chunk / 2 % 4) : row ^ (2 * (k_chunk % 4));
        return (k_chunk * rows + permuted) * chunk_bytes;
    }

    /// From a k-tile to another an even number of k-tiles away, and from the first tile of 8 columns to another.
    TILESMITH_DEVICE static constexpr int step(int k_tiles, int column_tile) {
        return (4 * rows * k_tiles + 8 * column_tile) * chunk_bytes;
    }
};

/// A moving matrix that lies as [sequence][k], in rows of `row_bytes`: what was copied from an array of states. Where
/// there are more than 4 sequences, lanes meet in banks.
template <int rows, int row_bytes>
struct RowLayout {
    TILESMITH_DEVICE static int offset(int k_chunk, int row) { return row * row_bytes + k_chunk * chunk_bytes; }

    TILESMITH_DEVICE static constexpr int step(int k_tiles, int column_tile) {
        return 4 * k_tiles * chunk_bytes + 8 * column_tile * row_bytes;
    }
};

/// A warp's part of the stationary matrix: `tiles` of 16 rows, `k_tiles` of 64 bytes of k, of which `k_tiles_in_registers` stay
/// in registers and the others in shared memory. `accumulators`: per tile, which work independently.
///
/// In float32 a product is three in TF32 of both matrices' parts (factors.cuh): a word is one, and what it is larger by the
/// other, which is made when it is multiplied; or, of words in registers, with `keeps_rests` once. Tensor cores cut what they
/// add up, always towards zero; what a k-tile makes is added to the sums outside.
///
/// `waits`: what is in shared memory is loaded, but for the first k-tile, and rests of the moving matrix are made, when the
/// products before are; where they would take too many registers.
template <class Type, int tiles, int k_tiles, int k_tiles_in_registers, int rows, int accumulators, bool keeps_rests = false,
          bool waits = false>
struct StationaryMatrix {
    static constexpr bool half_filled = rows == 4;  // these take the even columns of a tile of 8
    static constexpr int column_tiles = half_filled ? 1 : rows / 8;
    static constexpr int shared_k_tiles = k_tiles - k_tiles_in_registers;
    static constexpr int shared_bytes = shared_k_tiles * tiles * 2 * 32 * chunk_bytes;  // per warp
    static constexpr int k_tile_depth = tilesmith::k_tile_depth<Type>;
    static constexpr bool in_parts = !sums_in_tensor_cores<Type>;
    static constexpr bool loads_in_turn = in_parts || waits;  // rather than all at once
    static_assert(!in_parts || accumulators <= (half_filled ? 2 : 1), "sums outside tensor cores wait for nothing");

    static_assert(k_tiles_in_registers >= 0 && k_tiles_in_registers <= k_tiles, "more k-tiles in registers than there are");

    /// How many products of a k-tile and a tile are under way when the rests for the next one are made, and of k-tiles when the
    /// next one is loaded. A compiler that may makes and loads all of them at once, and spills.
    static constexpr int ahead = 2;

    using Sums = float[tiles][column_tiles][4];

    // Where only the even columns are wanted, the lanes of odd columns may read another k-tile instead of the same one
    // again: half as many loads. The product with that k-tile then stands in the odd columns, of accumulators of its own.
    static constexpr bool paired = half_filled && k_tiles >= 2 && accumulators >= 2;
    static_assert(!paired || accumulators / 2 <= k_tiles / 2 * 2, "an accumulator of odd k-tiles would get no product");

    static constexpr int k_tiles_per_read = paired ? 2 : 1;
    static constexpr int reads = ceil_div(k_tiles, k_tiles_per_read);

    unsigned words[tiles][k_tiles_in_registers > 0 ? k_tiles_in_registers : 1][2][4];
    SharedAddress shared;

    /// Load the matrix. `at`: this warp's shared memory. row(tile, k_tile, upper): 16 bytes of row g (upper = 0) or
    /// g + 8 (upper = 1) of a tile, from that chunk of the k-tile on that is number j.
    template <class Row>
    TILESMITH_DEVICE void load(SharedAddress at, int lane, Row row) {
        shared = at + lane * chunk_bytes;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int k_tile = 0; k_tile < k_tiles; ++k_tile) load_k_tile(tile, k_tile, row);
    }

    /// The same, first what is in shared memory, in a loop over k-tiles that stays one, then the rest, a tile after another: a
    /// compiler that may ask for all words at once, where they take most of the registers, spills what it needs later.
    template <class Row>
    TILESMITH_DEVICE void load_in_turn(SharedAddress at, int lane, Row row) {
        shared = at + lane * chunk_bytes;
#pragma unroll 1
        for (int k_tile = k_tiles_in_registers; k_tile < k_tiles; ++k_tile)
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) {
                const uint4 low = factors(row(tile, k_tile, 0)), high = factors(row(tile, k_tile, 1));
                store_words(tile, k_tile, low, high);
            }
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
            sync_warp();
#pragma unroll
            for (int k_tile = 0; k_tile < k_tiles_in_registers; ++k_tile) load_k_tile(tile, k_tile, row);
        }
    }

    template <class Row>
    TILESMITH_DEVICE void load_k_tile(int tile, int k_tile, Row row) {
        const uint4 low = factors(row(tile, k_tile, 0)), high = factors(row(tile, k_tile, 1));
        if (k_tile < k_tiles_in_registers) {
            unsigned(&w)[2][4] = words[tile][k_tile < k_tiles_in_registers ? k_tile : 0];
            w[0][0] = low.x, w[0][1] = high.x, w[0][2] = low.y, w[0][3] = high.y;
            w[1][0] = low.z, w[1][1] = high.z, w[1][2] = low.w, w[1][3] = high.w;
        } else {
            store_words(tile, k_tile, low, high);
        }
    }

    TILESMITH_DEVICE static uint4 factors(uint4 words) {
        return uint4{factor<Type>(words.x), factor<Type>(words.y), factor<Type>(words.z), factor<Type>(words.w)};
    }

    TILESMITH_DEVICE void store_words(int tile, int k_tile, uint4 low, uint4 high) const {
        const SharedAddress to = shared + shared_offset(tile, k_tile);
        store_shared_128(to, uint4{low.x, high.x, low.y, high.y});
        store_shared_128(to + 32 * chunk_bytes, uint4{low.z, high.z, low.w, high.w});
    }

    TILESMITH_DEVICE static constexpr int shared_offset(int tile, int k_tile) {
        return ((k_tile - k_tiles_in_registers) * tiles + tile) * 64 * chunk_bytes;
    }

    /// Which accumulators a k-tile's half adds to: those of odd k-tiles are apart where k-tiles are read in pairs.
    TILESMITH_DEVICE static constexpr int accumulator_of(int k_tile, int half) {
        return paired ? k_tile % 2 + 2 * (turn(k_tile, half) % (accumulators / 2)) : turn(k_tile, half) % accumulators;
    }

    static constexpr int used_accumulators = in_parts ? k_tiles_per_read : minimum(accumulators, 2 * k_tiles);

    /// How many matrix instructions come before, of those of even or odd k-tiles where k-tiles are read in pairs.
    TILESMITH_DEVICE static constexpr int turn(int k_tile, int half) { return 2 * (paired ? k_tile / 2 : k_tile) + half; }

    TILESMITH_DEVICE static constexpr bool begins_accumulator(int k_tile, int half) {
        return turn(k_tile, half) < (paired ? accumulators / 2 : accumulators);
    }

    /// Where a lane finds its words of the moving matrix, whose part for this warp begins at k_chunk `first_k_chunk` of k, a
    /// multiple of 4.
    template <class Layout>
    struct Places {
        SharedAddress even, odd;
        SharedAddress last;  // of an odd number of groups: it has no other to be read with

        TILESMITH_DEVICE Places() {}
        TILESMITH_DEVICE Places(SharedAddress moving, int first_k_chunk, int lane) {
            const auto begin = [&](int k_chunk) {
                return moving + Layout::offset(first_k_chunk + k_chunk, half_filled ? lane / 8 : lane / 4);
            };
            even = begin(lane % 4 + (paired ? lane / 4 % 2 * 4 : 0));
            odd = begin(lane % 4 + 4);
            last = begin(lane % 4);
        }

        /// 16 bytes for a group that is read, of a tile of 8 columns.
        TILESMITH_DEVICE SharedAddress at(int k_tile, int column_tile) const {
            const SharedAddress first = paired && k_tile == k_tiles - 1 ? last : k_tile % 2 == 0 ? even : odd;
            return first + Layout::step(k_tile / 2 * 2, column_tile);
        }
    };

    /// The sequence that a lane reads the moving matrix of, of a tile of 8 columns.
    TILESMITH_DEVICE static int row_read(int lane, int column_tile) {
        return half_filled ? lane / 8 : 8 * column_tile + lane / 4;
    }

    /// sums = this matrix times the moving one in shared memory. start(tile, column_tile, i): what the sums begin with.
    /// With 4 sequences the sums of odd i mean nothing.
    template <class Layout = MovingLayout<rows>, class Start>
    TILESMITH_DEVICE void multiply(Sums& sums, SharedAddress moving, int first_k_chunk, int lane, Start start) const {
        const Places<Layout> places(moving, first_k_chunk, lane);
        const auto read = [&](int k_tile, uint4(&b)[column_tiles]) {
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                b[column_tile] = load_shared_128(places.at(k_tile, column_tile));
        };
        product(sums, read, start);
    }

    /// The same where the moving matrix comes from read(group, words), which is called for each group that is read. are_factors:
    /// what comes has been rounded already.
    template <bool are_factors = false, class Read, class Start>
    TILESMITH_DEVICE void product(Sums& sums, Read read, Start start) const {
        float partial[accumulators][tiles][column_tiles][4];
        float made[ahead];  // sums of the last products, which rests wait for, and loads in float32
        float reached[ahead];  // of the last k-tiles, which loads wait for in TF32
        uint4 b[column_tiles];
#pragma unroll
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
            if (k_tile % k_tiles_per_read == 0) {
                read(k_tile, b);
                if constexpr (!are_factors)
#pragma unroll
                    for (int column_tile = 0; column_tile < column_tiles; ++column_tile) b[column_tile] = factors(b[column_tile]);
            }
            if constexpr (in_parts) {
                add_parts(
                    [&](int tile, int column_tile) -> float(&)[4] {
                        float(&d)[4] = partial[paired ? k_tile % 2 : 0][tile][column_tile];
                        if (k_tile < k_tiles_per_read)
#pragma unroll
                            for (int i = 0; i < 4; ++i) d[i] = k_tile == 0 ? start(tile, column_tile, i) : 0.0f;
                        return d;
                    },
                    b,
                    [&](unsigned(&a)[4], unsigned(&a_rest)[4], int tile, int half) {
                        const int turn = k_tile * tiles + tile;
                        const float earlier = turn < ahead ? __uint_as_float(b[0].x) : made[turn % ahead];
                        fetch(a, tile, k_tile, half, earlier);
                        rests(a_rest, a, keeps_rests ? factor_bits : word_after(earlier, factor_bits));
                    },
                    [&](int tile, float sum) { made[(k_tile * tiles + tile) % ahead] = sum; },
                    waits && k_tile > 0 ? word_after(made[(k_tile * tiles - 1) % ahead], factor_bits) : factor_bits);
                continue;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
#pragma unroll
                for (int tile = 0; tile < tiles; ++tile) {
                    unsigned a[4];
                    fetch(a, tile, k_tile, half, reached[k_tile % ahead]);
#pragma unroll
                    for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                        float(&d)[4] = partial[accumulator_of(k_tile, half)][tile][column_tile];
                        const unsigned b0 = half == 0 ? b[column_tile].x : b[column_tile].z;
                        const unsigned b1 = half == 0 ? b[column_tile].y : b[column_tile].w;
                        if (begins_accumulator(k_tile, half)) {
                            float first[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
                            for (int i = 0; i < 4; ++i)
                                if (k_tile == 0 && half == 0) first[i] = start(tile, column_tile, i);
                            multiply_words<Type>(d, a, b0, b1, first);
                        } else {
                            multiply_words<Type>(d, a, b0, b1, d);
                        }
                        if (waits) reached[k_tile % ahead] = d[0];
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
                    for (int accumulator = 1; accumulator < used_accumulators; ++accumulator)
                        sum += partial[accumulator][tile][column_tile][paired && accumulator % 2 == 1 ? i ^ 1 : i];
                    sums[tile][column_tile][i] = sum;
                }
    }

    /// Of `count` tiles, from `first_tile` on, the product with a moving matrix whose words a lane has. Few at a time take few
    /// accumulators, where R leaves no registers for those of all.
    template <int count>
    TILESMITH_DEVICE void product_of_tiles(float (&sums)[count][column_tiles][4], int first_tile,
                                           const uint4 (&b)[reads][column_tiles]) const {
        static_assert(!in_parts && !paired && accumulators == 1, "sums in tensor cores, of 8 sequences and more");
#pragma unroll
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int tile = 0; tile < count; ++tile) {
                    unsigned a[4];
                    fetch(a, first_tile + tile, k_tile, half);
#pragma unroll
                    for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                        float(&d)[4] = sums[tile][column_tile];
                        const uint4 words = b[k_tile][column_tile];
                        if (k_tile == 0 && half == 0)
#pragma unroll
                            for (int i = 0; i < 4; ++i) d[i] = 0.0f;
                        multiply_words<Type>(d, a, half == 0 ? words.x : words.z, half == 0 ? words.y : words.w, d);
                    }
                }
    }

    /// The same, of what is in shared memory no sooner than that `earlier` is there, a sum of products before.
    TILESMITH_DEVICE void fetch(unsigned (&a)[4], int tile, int k_tile, int half, float earlier) const {
        if (!waits || k_tile < maximum(k_tiles_in_registers, ahead)) return fetch(a, tile, k_tile, half);
        const SharedAddress at = word_after(earlier, shared + shared_offset(tile, k_tile));
        load_words(a, at + half * 32 * chunk_bytes);
    }

    TILESMITH_DEVICE void fetch(unsigned (&a)[4], int tile, int k_tile, int half) const {
        if (k_tile < k_tiles_in_registers) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = words[tile][k_tile < k_tiles_in_registers ? k_tile : 0][half][i];
        } else {
            fetch_shared(a, tile, k_tile, half);
        }
    }

    TILESMITH_DEVICE void fetch_shared(unsigned (&a)[4], int tile, int k_tile, int half) const {
        load_words(a, shared + shared_offset(tile, k_tile) + half * 32 * chunk_bytes);
    }

    TILESMITH_DEVICE static void load_words(unsigned (&a)[4], SharedAddress at) {
        const uint4 w = load_shared_128(at);
        a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
    }

    /// As multiply, with a loop over the k-tiles in shared memory that stays one: what a compiler loads ahead of its use is of
    /// one k-tile and not of all, so fewer registers are taken.
    template <class Layout = MovingLayout<rows>, class Start>
    TILESMITH_DEVICE void multiply_in_turn(Sums& sums, SharedAddress moving, int first_k_chunk, int lane, Start start) const {
        static_assert(accumulators == 1, "what has time for turns needs no accumulators that overlap");
        const Places<Layout> places(moving, first_k_chunk, lane);
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[tile][column_tile][i] = start(tile, column_tile, i);
#pragma unroll
        for (int k_tile = 0; k_tile < k_tiles_in_registers; ++k_tile)
            add(sums, places, k_tile, [&](unsigned(&a)[4], int tile, int half) { fetch(a, tile, k_tile, half); });
#pragma unroll 1
        for (int k_tile = k_tiles_in_registers; k_tile < k_tiles; ++k_tile)
            add(sums, places, k_tile, [&](unsigned(&a)[4], int tile, int half) { fetch_shared(a, tile, k_tile, half); });
    }

    /// Add the products of one k-tile. fetch_words(a, tile, half): the stationary matrix's.
    template <class Layout, class Fetch>
    TILESMITH_DEVICE static void add(Sums& sums, const Places<Layout>& places, int k_tile, Fetch fetch_words) {
        uint4 b[column_tiles];
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
            b[column_tile] = factors(load_shared_128(places.at(k_tile, column_tile)));
        if constexpr (in_parts)
            return add_parts([&](int tile, int column_tile) -> float(&)[4] { return sums[tile][column_tile]; }, b,
                             [&](unsigned(&a)[4], unsigned(&a_rest)[4], int tile, int half) {
                                 fetch_words(a, tile, half);
                                 rests(a_rest, a, word_after(__uint_as_float(b[0].x), factor_bits));
                             },
                             [](int, float) {});
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) {
                unsigned a[4];
                fetch_words(a, tile, half);
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                    float(&d)[4] = sums[tile][column_tile];
                    const unsigned b0 = half == 0 ? b[column_tile].x : b[column_tile].z;
                    const unsigned b1 = half == 0 ? b[column_tile].y : b[column_tile].w;
                    multiply_words<Type>(d, a, b0, b1, d);
                }
            }
    }

    TILESMITH_DEVICE static void rests(unsigned (&a_rest)[4], const unsigned (&a)[4], unsigned bits) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a_rest[i] = rest_of_factor(a[i], bits);
    }

    /// Add those of floats: three products for one. sums(tile, column_tile): what they are added to. fetch_words(a, a_rest, tile,
    /// half): the stationary matrix's, and their rests. made(tile, sum): called when a tile's are added. bits: factor_bits.
    template <class SumsOf, class Fetch, class Made>
    TILESMITH_DEVICE static void add_parts(SumsOf sums, const uint4 (&b)[column_tiles], Fetch fetch_words, Made made,
                                           unsigned bits = factor_bits) {
        uint4 b_rest[column_tiles];
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
            const uint4 word = b[column_tile];
            b_rest[column_tile] =
                uint4{rest_of_factor(word.x, bits), rest_of_factor(word.y, bits),
                      rest_of_factor(word.z, bits), rest_of_factor(word.w, bits)};
        }
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
            unsigned a[2][4], a_rest[2][4];
#pragma unroll
            for (int half = 0; half < 2; ++half) fetch_words(a[half], a_rest[half], tile, half);
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
                float(&d)[4] = sums(tile, column_tile);
                const uint4 word = b[column_tile], rest = b_rest[column_tile];
                if constexpr (!multiply_tf32) {
                    multiply_words<Type>(d, a[0], word.x, word.y, d);
                    multiply_words<Type>(d, a[1], word.z, word.w, d);
                    continue;
                }
                float product[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                multiply_words<Type>(product, a[0], rest.x, rest.y, product);
                multiply_words<Type>(product, a[1], rest.z, rest.w, product);
                multiply_words<Type>(product, a_rest[0], word.x, word.y, product);
                multiply_words<Type>(product, a_rest[1], word.z, word.w, product);
                multiply_words<Type>(product, a[0], word.x, word.y, product);
                multiply_words<Type>(product, a[1], word.z, word.w, product);
#pragma unroll
                for (int i = 0; i < 4; ++i) d[i] += product[i];
                if (column_tile == 0) made(tile, d[0]);
            }
        }
    }
};

}  // namespace tilesmith
