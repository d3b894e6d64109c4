// Results on their way from shared to global memory, in rows of up to 16 bytes a thread. Stores of single 16-bit
// values straight from the lanes cost several times as much (docs/lab/resident.md).
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// Writes `planes` arrays of [sequence][unit], for `rows` sequences and `units` units of one head, once a step. `threads`
/// of `Who` share the work.
template <FixedShape shape, int rows, int threads, int planes, int units = shape.head_dim, class Who = WholeBlock>
struct PlaneWriter {
    static constexpr int width = vector_width(shape.head_dim);
    static constexpr int row_writes = units / width;
    static constexpr int plane_writes = rows * row_writes;
    static constexpr int writes = ceil_div(planes * plane_writes, threads);  // per thread and step
    unsigned short* to[writes];
    SharedAddress from[writes];
    bool real[writes];

    /// Point at the first step. target(plane, row, unit): where the elements of a sequence of the block go in global
    /// memory; locate(plane, row, unit): where they lie in shared memory. valid_rows, valid_units: how many are real.
    template <class Target, class Locate>
    TILESMITH_DEVICE void prepare(int valid_rows, int valid_units, Target target, Locate locate) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            const int write = Who::thread() + i * threads;
            const int plane = plane_of(i);
            const int row = write / row_writes % rows;
            const int unit = write % row_writes * width;
            real[i] = write < planes * plane_writes && row < valid_rows && (shape.head_dim % units == 0 || unit < valid_units);
            to[i] = target(plane, row, unit);
            from[i] = locate(plane, row, unit);
        }
    }

    TILESMITH_DEVICE static int plane_of(int i) {
        return minimum((Who::thread() + i * threads) / plane_writes, planes - 1);
    }

    /// Write one step from the buffer at `buffer_offset`, and move on by step(plane) elements.
    template <class Step>
    TILESMITH_DEVICE void write(int buffer_offset, Step step) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            if (real[i]) copy_to_global<2 * width>(to[i], from[i] + buffer_offset);
            to[i] += step(plane_of(i));
        }
    }
};

}  // namespace tilesmith
