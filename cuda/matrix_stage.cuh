// Stages of a matrix on their way from global memory to the tensor cores: copied asynchronously into shared memory as they lie,
// from rows that may lie anywhere, and read from there as the operands of a matrix instruction.
#pragma once

#include "factors.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// Places are the elements at which rows begin in an array, in a table in shared memory; of rows that there are not, nowhere.
inline constexpr long long nowhere = -16;  // aligned as an array is, since copies of zeros have an address too
inline constexpr int place_bytes = 8;
TILESMITH_DEVICE void store_place(SharedAddress table, int at, long long place) {
    const unsigned long long bits = static_cast<unsigned long long>(place);
    store_shared_64(table + at * place_bytes, uint2{static_cast<unsigned>(bits), static_cast<unsigned>(bits >> 32)});
}
TILESMITH_DEVICE long long load_place(SharedAddress table, int at) {
    const uint2 words = load_shared_64(table + at * place_bytes);
    return static_cast<long long>(static_cast<unsigned long long>(words.y) << 32 | words.x);
}

/// A stage of one of the matrices in shared memory: `count` of its rows, a tile's, by `depth` of k, as they lie in memory.
template <class Type, bool transposed, int count, int depth, int width, int threads>
struct StageOfMatrix {
    static constexpr int size = element_bytes<Type>;
    static constexpr int rows = transposed ? depth : count, row_elements = transposed ? count : depth;
    /// Rows lie apart such that a warp's loads meet no bank twice: ldmatrix reads 16 bytes of 8 rows, which want an odd number of
    /// those; words of 8 elements in each of 4 rows want 8 words more, and doubles likewise.
    static constexpr bool by_matrix = size == 2 || (size == 4 && !transposed);
    static constexpr int row_bytes =
        by_matrix ? (row_elements * size / chunk_bytes | 1) * chunk_bytes : row_elements * size + 2 * chunk_bytes;
    static constexpr int bytes = rows * row_bytes;

    static constexpr int pieces = row_elements / width, rows_at_once = threads / pieces;
    static constexpr int rounds = rows / rows_at_once, together = minimum(rounds, 8);
    static_assert(threads % pieces == 0 && rows % rows_at_once == 0 && rounds % together == 0, "every thread copies as much");

    /// Begin copying, from element `first` of each row on; zeros for what is beyond a row's `length`, and for rows that are
    /// nowhere. places: where the rows begin in the array.
    TILESMITH_DEVICE static void copy(SharedAddress stage, SharedAddress places, const Element<Type>* array, int length, int first,
                                      int thread) {
        const int piece = thread % pieces * width, own_row = thread / pieces;
        const bool inside = first + piece < length;
        const Element<Type>* const from = array + first + piece;
#pragma unroll 1
        for (int begin = 0; begin < rounds; begin += together) {
            long long place[together];
#pragma unroll
            for (int i = 0; i < together; ++i) place[i] = load_place(places, (begin + i) * rows_at_once + own_row);
            const SharedAddress to = stage + (begin * rows_at_once + own_row) * row_bytes + piece * size;
            if constexpr (width * size < 4) {  // too narrow for an asynchronous copy
                unsigned short words[together];
#pragma unroll
                for (int i = 0; i < together; ++i) words[i] = inside && place[i] >= 0 ? load_global_16(from + place[i]) : 0;
#pragma unroll
                for (int i = 0; i < together; ++i) store_shared_16(to + i * rows_at_once * row_bytes, words[i]);
            } else {
#pragma unroll
                for (int i = 0; i < together; ++i)
                    cp_async_or_zeros<width * size>(to + i * rows_at_once * row_bytes, from + place[i], inside && place[i] >= 0);
            }
        }
    }

    /// What a lane has of 16 rows of the matrix and the k of one instruction, in the order in which an instruction takes its
    /// first operand: rows g, then g + 8 of the first k, then of the second; of doubles there are no second.
    using Word = typename Either<size == 8, double, unsigned>::Type;
    static constexpr int words = size == 8 ? 2 : 4;
    TILESMITH_DEVICE static void load(Word (&out)[words], SharedAddress stage, int first, int slice, int lane) {
        constexpr int k = product_depth<Type>;
        if constexpr (by_matrix && transposed) {
            const int row = k * slice + lane % 8 + lane / 16 * 8;
            ldmatrix_x4_trans(out, stage + row * row_bytes + (first / 8 + lane / 8 % 2) * chunk_bytes);
        } else if constexpr (by_matrix) {
            ldmatrix_x4(out, stage + (first + lane % 16) * row_bytes + (2 * slice + lane / 16) * chunk_bytes);
        } else {
            const int g = lane / 4, j = lane % 4;
#pragma unroll
            for (int i = 0; i < words; ++i) {
                const int of_k = k * slice + i / 2 * 4 + j, row = first + i % 2 * 8 + g;
                const SharedAddress from = stage + (transposed ? of_k : row) * row_bytes + (transposed ? row : of_k) * size;
                if constexpr (size == 8)
                    out[i] = load_shared_double(from);
                else
                    out[i] = load_shared_32(from);
            }
        }
    }
};

}  // namespace tilesmith
