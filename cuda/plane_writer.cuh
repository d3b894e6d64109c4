// Results on their way from shared to global memory, in rows of up to 16 bytes a thread. Stores of single 16-bit
// values straight from the lanes cost several times as much (docs/lab/resident.md).
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// Writes `planes` arrays of [sequence][unit], `rows` sequences of one head each, once a step.
template <FixedShape shape, int rows, int threads, int planes>
struct PlaneWriter {
    static constexpr int D = shape.head_dim;
    static constexpr int width = vector_width(D);
    static constexpr int row_writes = D / width;
    static constexpr int plane_writes = rows * row_writes;
    static constexpr int writes = ceil_div(planes * plane_writes, threads);  // per thread and step
    unsigned short* to[writes];
    SharedAddress from[writes];
    bool real[writes];

    /// Point at the first step. base(plane) is the array [B, T, H, D] a plane belongs to; locate(plane, row, unit) the
    /// shared address of its elements from `unit` on.
    template <class Base, class Locate>
    TILESMITH_DEVICE void prepare(const ForwardArguments& in, int head, int first_row, Base base, Locate locate) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            const int write = static_cast<int>(thread_index()) + i * threads;
            const int plane = minimum(write / plane_writes, planes - 1);
            const int row = write / row_writes % rows;
            const int unit = write % row_writes * width;
            real[i] = write < planes * plane_writes && first_row + row < in.batch;
            to[i] = base(plane) + (static_cast<long long>(first_row + row) * in.seq * shape.heads + head) * D + unit;
            from[i] = locate(plane, row, unit);
        }
    }

    /// Write one step from the buffer at `buffer_offset`, and move on to the next step.
    TILESMITH_DEVICE void write(int buffer_offset) {
#pragma unroll
        for (int i = 0; i < writes; ++i) {
            if (real[i]) copy_to_global<2 * width>(to[i], from[i] + buffer_offset);
            to[i] += shape.heads * D;
        }
    }
};

}  // namespace tilesmith
