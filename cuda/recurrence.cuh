// What every schedule shares: the arguments of a forward kernel, small arithmetic at compile time, and loads that
// respect the alignment a head dimension allows.
#pragma once

#include "elements.cuh"
#include "stamps.cuh"

namespace tilesmith {

inline constexpr int chunk_bytes = 16;  // the unit in which shared memory is laid out

/// Elements of 16 bytes.
template <class Type>
inline constexpr int chunk_elements = chunk_bytes / element_bytes<Type>;

/// What the forward pass writes for every step: h alone, every state, or every state and every gate.
enum class Save { hidden, states, gates };

/// Where a backward pass has the gates' sums from: read as a forward pass saved them, or recomputed from Wx, b and h.
enum class Gates { saved, recomputed };

/// What sequences of a batch have of their own, of which a kernel knows: see sequences.cuh.
struct Sequences {
    bool resets = false;   // steps before which the states are the initial ones again
    bool lengths = false;  // numbers of steps; what is behind a sequence's end is zeros
};

/// The sizes that are fixed when a kernel is generated; batch and sequence length come at launch.
struct FixedShape {
    int heads;
    int head_dim;
    int inputs = 0;  // elements of x, where a kernel multiplies its input itself; 0 where it reads the product
};

/// The arrays of a forward pass, C-contiguous, elements of the kernel's type (elements.cuh). B batch, T seq, H heads, D head
/// dimension, I elements of x; a cell has S states and gates of which G_in have an input, G_rec a recurrent product, G_bias a
/// bias, and G_saved sums that change from step to step and that a backward step reads.
template <class Word>
struct ForwardArgumentsOf {
    const Word* wx;          // [B, T, G_in, H, D], unless the kernel multiplies its input itself
    const Word* x;           // [B, T, I], where it does
    const Word* w;           // [G_in, H, D, I], likewise
    const Word* input_bias;  // [G_in, H, D], likewise; or null: zeros
    const Word* r;        // [G_rec, H, D, D]: from previous unit (last axis) to unit
    const Word* b;        // [G_bias, H, D]
    const Word* initial;  // [S, B, H, D] or null: zeros
    const unsigned char* resets;  // [B, T]: 1 where a sequence begins anew, see Sequences; or null
    const int* lengths;           // [B]: how many steps each sequence has, likewise
    const int* order;             // [B]: the sequences' numbers, the longest first, likewise
    Word* states;         // [1 or S, B, T, H, D], see Save; h alone where `others` is given
    Word* others;         // [S - 1, B, T, H, D]: the states but h, or null: they follow h in `states`
    Word* last;           // [S, B, H, D]
    Word* gates;          // [G_saved, B, T, H, D] or null, see Save
    unsigned* mail;       // where blocks of a grid send each other h, all poison; null for other schedules
    Word* hidden;         // where they store it for each other, or null
    SumOf<Word>* carried;       // other states of what a block runs in turn, or null
    unsigned* counters;   // see grid_barrier.cuh, all 0xffffffff; or null
    int batch;
    int seq;
    TILESMITH_STAMPED(unsigned* stamps;)
};
using ForwardArguments = ForwardArgumentsOf<unsigned short>;

/// The arrays of a backward pass, as in ForwardArguments; d_ marks the gradient of what follows it.
template <class Word>
struct BackwardArgumentsOf {
    const Word* wx;        // [B, T, G_in, H, D], where gates are recomputed
    const Word* r;         // [G_rec, H, D, D]
    const Word* b;         // [G_bias, H, D], where gates are recomputed or are nothing but a bias
    const Word* initial;   // [S, B, H, D] or null: zeros
    const Word* states;    // [S, B, T, H, D], as saved; h alone where `others` is given
    const Word* others;    // [S - 1, B, T, H, D]: the states but h, or null
    const Word* gates;     // [G_saved, B, T, H, D], as saved, unless they are recomputed
    const Word* d_states;  // [1 or S, B, T, H, D]
    const Word* d_last;    // [S, B, H, D] or null: zeros
    const unsigned char* resets;  // [B, T], as forward
    const int* lengths;           // [B], as forward
    const int* order;             // [B], as forward
    Word* d_wx;            // [B, T, G_in, H, D]
    Word* d_inputless;     // [B, T, G_rec without an input, H, D]: their gradients, where a kernel leaves them
    SumOf<Word>* d_r_partial;    // [P, G_rec without an input, H, D, D]: where it leaves P partial sums instead; or null
    SumOf<Word>* d_b_partial;    // [P, G_bias without an input, H, D] likewise
    Word* d_initial;       // [S, B, H, D]
    unsigned* mail;        // where blocks of a grid send each other the gates' gradients, all poison; or null
    Word* d_gates;         // where blocks store the gates' gradients for each other, or null
    Word* d_sums;          // where they store their parts of the gradients of h, or null
    SumOf<Word>* d_carried;      // gradients of the states of what a block runs in turn, or null
    unsigned* counters;    // see grid_barrier.cuh, all 0xffffffff; or null
    int batch;
    int seq;
    TILESMITH_STAMPED(unsigned* stamps;)
};
using BackwardArguments = BackwardArgumentsOf<unsigned short>;

/// Who share a piece of work: all threads of a block, or those of a warp.
struct WholeBlock {
    TILESMITH_DEVICE static int thread() { return static_cast<int>(thread_index()); }
};
struct OneWarp {
    TILESMITH_DEVICE static int thread() { return static_cast<int>(thread_index()) % 32; }
};

/// A constant that a function takes as an argument.
template <bool>
struct Constant {};

/// One of two types.
template <bool first, class A, class B>
struct Either {
    using Type = A;
};
template <class A, class B>
struct Either<false, A, B> {
    using Type = B;
};

TILESMITH_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
TILESMITH_DEVICE constexpr int minimum(int a, int b) { return a < b ? a : b; }
TILESMITH_DEVICE constexpr int maximum(int a, int b) { return a > b ? a : b; }
/// Whether so many elements, and a launch beyond them, can be counted in 32 bits.
TILESMITH_DEVICE constexpr bool fits_int(long long count) { return count < (1ll << 31) - (1 << 24); }

// Of gates, one bit each. No loops whose length depends on the bits: what these give often is an index of an array that
// must stay in registers, and a compiler unrolls such loops or does not.

/// Number of bits set: how many gates have the property that the bits mark.
TILESMITH_DEVICE constexpr int count_bits(unsigned bits) {
    bits -= bits >> 1 & 0x55555555u;
    bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
    return static_cast<int>(((bits + (bits >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}
/// The position of gate `gate` among those that `bits` marks.
TILESMITH_DEVICE constexpr int rank_among(unsigned bits, int gate) { return count_bits(bits & ((1u << gate) - 1)); }
/// The position of the n-th bit set, counted from 0: as many as have at most n bits set up to and with them.
TILESMITH_DEVICE constexpr int nth_bit(unsigned bits, int n) {
    int position = 0;
#pragma unroll
    for (int i = 0; i < 31; ++i) position += count_bits(bits & ((2u << i) - 1)) <= n ? 1 : 0;
    return position;
}
TILESMITH_DEVICE constexpr bool has(unsigned bits, int gate) { return (bits >> gate & 1) != 0; }

/// The widest vector, in elements of `bytes`, that divides every row of `head_dim` elements: at most 16 bytes.
TILESMITH_DEVICE constexpr int vector_width(int head_dim, int bytes = 2) {
    return bytes == 2 && head_dim % 8 == 0 ? 8 : bytes <= 4 && head_dim % 4 == 0 ? 4 : head_dim % 2 == 0 ? 2 : 1;
}

/// Eight consecutive 16-bit words of a row with `valid` words left, zeros past its end.
template <int Width>
TILESMITH_DEVICE uint4 load_row_of_8(const unsigned short* row, int valid) {
    unsigned words[4] = {0, 0, 0, 0};
    if constexpr (Width == 8) {
        if (valid > 0) return load_global_128(row);
    } else if constexpr (Width == 4) {
#pragma unroll
        for (int i = 0; i < 2; ++i)
            if (valid > 4 * i) {
                const uint2 pair = load_global_64(row + 4 * i);
                words[2 * i] = pair.x;
                words[2 * i + 1] = pair.y;
            }
    } else if constexpr (Width == 2) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (valid > 2 * i) words[i] = load_global_32(row + 2 * i);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (valid > i) words[i / 2] |= static_cast<unsigned>(load_global_16(row + i)) << (16 * (i % 2));
    }
    return uint4{words[0], words[1], words[2], words[3]};
}

/// Write zeros to `Bytes` (2, 4, 8 or 16) of global memory.
template <int Bytes>
TILESMITH_DEVICE void zero_global(void* to) {
    if constexpr (Bytes == 16)
        store_global_128(to, uint4{0, 0, 0, 0});
    else if constexpr (Bytes == 8)
        store_global_64(to, uint2{0, 0});
    else if constexpr (Bytes == 4)
        store_global_32(to, 0);
    else
        store_global_16(to, 0);
}

/// The same for 16 bytes of elements of any type.
template <class Type, int Width>
TILESMITH_DEVICE uint4 load_row_chunk(const Element<Type>* row, int valid) {
    if constexpr (element_bytes<Type> == 2) {
        return load_row_of_8<Width>(row, valid);
    } else {
        unsigned words[4] = {0, 0, 0, 0};
        constexpr int words_of_vector = Width * element_bytes<Type> / 4, vectors = 4 / words_of_vector;
        if constexpr (vectors == 1) {
            if (valid > 0) return load_global_128(row);
        } else if constexpr (vectors == 2) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                if (valid > Width * i) {
                    const uint2 pair = load_global_64(row + Width * i);
                    words[2 * i] = pair.x;
                    words[2 * i + 1] = pair.y;
                }
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (valid > i) words[i] = load_global_32(row + i);
        }
        return uint4{words[0], words[1], words[2], words[3]};
    }
}

/// The same of a row of a matrix of so many columns.
template <int columns, class Word>
TILESMITH_DEVICE uint4 load_chunk_of_row(const Word* row, int valid) {
    using Type = typename Either<sizeof(Word) == 2, bf16, typename Either<sizeof(Word) == 4, fp32, fp64>::Type>::Type;
    return load_row_chunk<Type, vector_width(columns, sizeof(Word))>(row, valid);
}

/// Copy `Bytes` (2, 4, 8 or 16) from shared to global memory.
template <int Bytes>
TILESMITH_DEVICE void copy_to_global(void* to, SharedAddress from) {
    if constexpr (Bytes == 16)
        store_global_128(to, load_shared_128(from));
    else if constexpr (Bytes == 8)
        store_global_64(to, load_shared_64(from));
    else if constexpr (Bytes == 4)
        store_global_32(to, load_shared_32(from));
    else
        store_global_16(to, load_shared_16(from));
}

}  // namespace tilesmith
