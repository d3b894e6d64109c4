// A step's inputs on their way from global memory to the lanes: copied asynchronously, some steps ahead, into a ring
// of stages in shared memory, and read from there: of 16 bits transposed by ldmatrix, which hands each lane the elements its
// accumulators belong to, else one by one.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// Bytes of a row of so many units, a multiple of 8, of which lanes read the same unit of 8 rows by ldmatrix, or 8 units of 4 rows
/// or of every second of 8: so many chunks of 16 bytes that these lie in different banks.
template <class Type, int rows>
TILESMITH_DEVICE constexpr int row_bytes_of(int units) {
    return (units / chunk_elements<Type> | (element_bytes<Type> == 4 && rows == 4 ? 2 : 1)) * chunk_bytes;
}

/// A ring of stages; a stage holds one step of several arrays (Wx of each gate, say) for `rows` sequences:
/// [array][sequence][unit], rows of `row_bytes`, as row_bytes_of has them so that lanes read from different banks. With 4
/// sequences they take the even columns of a tile, and a matrix holds two arrays instead of one.
/// `threads` of `Who` share the copies, of `units` from each row.
template <class Type, FixedShape shape, int arrays, int rows, int threads, int row_bytes, int units = shape.head_dim,
          class Who = WholeBlock>
struct InputRing {
    static constexpr int element = element_bytes<Type>, width = vector_width(shape.head_dim, element);
    static constexpr bool half_filled = rows == 4;
    static constexpr int stage_bytes = arrays * rows * row_bytes;

    // ---- copying ----

    static constexpr int row_copies = units / width;                 // per array and sequence
    static constexpr int stage_copies = arrays * rows * row_copies;  // per step
    static constexpr int copies = ceil_div(stage_copies, threads);   // per thread and step
    const Element<Type>* from[copies];
    SharedAddress to[copies];

    /// Point at the first step to copy, and at the ring. source(array, row, unit): where the elements of a sequence of
    /// the block begin in global memory; a row past the end of the batch may give any other.
    template <class Source>
    TILESMITH_DEVICE void prepare(SharedAddress ring, Source source) {
        prepare_places(source, [&](int array, int row, int unit) { return ring + (array * rows + row) * row_bytes + element * unit; });
    }

    /// The same for stages that are laid out in another way. place(array, row, unit): where those elements go in the first.
    template <class Source, class Place>
    TILESMITH_DEVICE void prepare_places(Source source, Place place) {
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            int array, row, unit;
            locate(i, array, row, unit);
            from[i] = source(array, row, unit);
            to[i] = place(array, row, unit);
        }
    }

    /// What this thread's i-th copy is of.
    TILESMITH_DEVICE static void locate(int i, int& array, int& row, int& unit) {
        const int copy = minimum(Who::thread() + i * threads, stage_copies - 1);
        array = array_of(i);
        row = copy / row_copies % rows;
        unit = copy % row_copies * width;
    }

    TILESMITH_DEVICE static int array_of(int i) {
        return minimum((Who::thread() + i * threads) / (rows * row_copies), arrays - 1);
    }

    TILESMITH_DEVICE static bool copies_too(int i) {
        return stage_copies % threads == 0 || Who::thread() + i * threads < stage_copies;
    }

    /// Begin copying one step into the stage at `stage_offset`, and move on by step(array) elements.
    template <class Step>
    TILESMITH_DEVICE void begin_copy(int stage_offset, Step step) {
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            if (copies_too(i)) copy(to[i] + stage_offset, from[i]);
            from[i] += step(array_of(i));
        }
    }

    TILESMITH_DEVICE static void copy(SharedAddress to, const Element<Type>* from) {
        if constexpr (width * element == 2)
            store_shared_16(to, load_global_16(from));  // too narrow for an asynchronous copy
        else
            cp_async<width * element>(to, from);
    }

    /// The same, or zeros.
    TILESMITH_DEVICE static void copy_or_zeros(SharedAddress to, const Element<Type>* from, bool real) {
        if constexpr (width * element == 2)
            store_shared_16(to, real ? load_global_16(from) : 0);
        else
            cp_async_or_zeros<width * element>(to, from, real);
    }

    /// Zeros where a copy would be.
    TILESMITH_DEVICE static void clear(SharedAddress to) {
        if constexpr (element == 2) {
#pragma unroll
            for (int word = 0; word < width; ++word) store_shared_16(to + 2 * word, 0);
        } else {
#pragma unroll
            for (int word = 0; word < width * element / 4; ++word) store_shared_32(to + 4 * word, 0);
        }
    }

    // ---- reading ----

    static constexpr bool by_matrices = element == 2;
    static constexpr int columns = half_filled ? 1 : 2;  // of a lane
    static constexpr int arrays_per_matrix = half_filled ? 2 : 1;
    static constexpr int matrices = ceil_div(arrays, arrays_per_matrix);  // per unit group and column tile
    static constexpr int loads = ceil_div(matrices, 4);
    static constexpr int words = by_matrices ? 4 * loads : arrays * columns;
    using Word = typename Either<by_matrices, unsigned, Real<Type>>::Type;

    /// The row that a lane points the i-th ldmatrix at, within a stage and for the first unit group. Lanes whose
    /// array does not exist point at the last one.
    TILESMITH_DEVICE static int row_offset(int lane, int i) {
        const int matrix = 4 * i + lane / 8, matrix_row = lane % 8;
        const int array = half_filled ? 2 * matrix + matrix_row % 2 : matrix;
        const int row = half_filled ? matrix_row / 2 : matrix_row;
        return (minimum(array, arrays - 1) * rows + row) * row_bytes;
    }

    /// Load the inputs of a lane's elements; `at` is the stage, at the warp's first unit group.
    /// Each word holds columns 2j, 2j + 1 of one array, or (with 4 sequences) the lane's column of two arrays; or one element.
    template <int unit_groups, int column_tiles>
    TILESMITH_DEVICE static void load(Word (&out)[unit_groups][column_tiles][words], SharedAddress at, int lane) {
        if constexpr (by_matrices) {
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
                for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                    for (int i = 0; i < loads; ++i)
                        load_matrices(out[unit_group][column_tile], i,
                                      at + row_offset(lane, i) + chunk_bytes * unit_group + 8 * column_tile * row_bytes);
        } else {
            load_elements(out, at + lane % 4 * columns * row_bytes + lane / 4 * element);
        }
    }

    TILESMITH_DEVICE static void load_matrices(unsigned (&out)[words], int i, SharedAddress at) {
        const int left = matrices - 4 * i;
        if (left == 1) {
            ldmatrix_x1_trans(out[4 * i], at);
        } else if (left == 2) {
            unsigned two[2];
            ldmatrix_x2_trans(two, at);
            out[4 * i] = two[0], out[4 * i + 1] = two[1];
        } else {
            unsigned four[4];
            ldmatrix_x4_trans(four, at);
#pragma unroll
            for (int k = 0; k < 4; ++k) out[4 * i + k] = four[k];
        }
    }

    /// The same one by one, from where the lane's first lies.
    template <int unit_groups, int column_tiles>
    TILESMITH_DEVICE static void load_elements(Word (&out)[unit_groups][column_tiles][words], SharedAddress own) {
#pragma unroll
        for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
                for (int i = 0; i < words; ++i)
                    out[unit_group][column_tile][i] = load_shared_element<Type>(
                        own + (i / columns * rows + 8 * column_tile + i % columns) * row_bytes + 8 * element * unit_group);
    }

    /// One array's value of a lane's element in column 2j + `column`.
    TILESMITH_DEVICE static float value(const Word (&in)[words], int array, int column) {
        if constexpr (by_matrices) {
            const unsigned word = in[array / arrays_per_matrix];
            const int half = half_filled ? array % 2 : column;
            return half == 0 ? unpack_low<Type>(word) : unpack_high<Type>(word);
        } else {
            return in[array * columns + column];
        }
    }
};

}  // namespace tilesmith
