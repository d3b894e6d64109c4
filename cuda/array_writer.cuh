// Results on their way from shared to global memory, in rows of up to 16 bytes a thread. Stores of single 16-bit
// values straight from the lanes cost several times as much (docs/lab/resident.md).
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// Writes arrays of [sequence][unit], as many as `arrays` says, for `rows` sequences and `units` units of one head, once a
/// step. `threads` of `Who` share the work.
template <FixedShape shape, int rows, int threads, int arrays, int units = shape.head_dim, class Who = WholeBlock,
          class Word = unsigned short>
struct ArrayWriter {
    static constexpr int width = vector_width(shape.head_dim, sizeof(Word));
    static constexpr int bytes = width * static_cast<int>(sizeof(Word));  // of a write
    static constexpr int row_writes = units / width;
    static constexpr int array_writes = rows * row_writes;
    static constexpr int writes = ceil_div(arrays * array_writes, threads);  // per thread and step
    Word* to[writes];
    SharedAddress from[writes];
    bool real[writes];

    /// Point at the first step. target(array, row, unit): where the elements of a sequence of the block go in global
    /// memory; locate(array, row, unit): where they lie in shared memory. valid_rows, valid_units: how many are real.
    template <class Target, class Locate>
    TILESMITH_DEVICE void prepare(int valid_rows, int valid_units, Target target, Locate locate) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            const int write = Who::thread() + i * threads;
            const int array = array_of(i);
            const int row = row_of(i);
            const int unit = write % row_writes * width;
            real[i] = write < arrays * array_writes && row < valid_rows && (units == shape.head_dim || unit < valid_units);
            to[i] = target(array, row, unit);
            from[i] = locate(array, row, unit);
        }
    }

    TILESMITH_DEVICE static int array_of(int i) {
        return minimum((Who::thread() + i * threads) / array_writes, arrays - 1);
    }

    TILESMITH_DEVICE static int row_of(int i) { return (Who::thread() + i * threads) / row_writes % rows; }

    /// From now on take what is written of some rows, a bit each, from one place in shared memory.
    TILESMITH_DEVICE void redirect(unsigned of_rows, SharedAddress place) {
#pragma unroll
        for (int i = 0; i < writes; ++i)
            if ((of_rows >> row_of(i) & 1) != 0) from[i] = place;
    }

    /// Write one step from the buffer at `buffer_offset`, and move on by step(array) elements.
    template <class Step>
    TILESMITH_DEVICE void write(int buffer_offset, Step step) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            if (real[i]) copy_to_global<bytes>(to[i], from[i] + buffer_offset);
            to[i] += step(array_of(i));
        }
    }

    /// Write zeros for `steps` steps, and move on by step(array) elements each.
    template <class Step>
    TILESMITH_DEVICE void write_zeros(int steps, Step step) {
        for (int n = 0; n < steps; ++n) {
#pragma unroll
            for (int i = 0; i < writes; ++i) {
                if (real[i]) zero_global<bytes>(to[i]);
                to[i] += step(array_of(i));
            }
        }
    }
};

}  // namespace tilesmith
