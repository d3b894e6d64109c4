// Rows in another order: of an array whose rows are counted along up to four axes, a copy with the axes in another order, such
// as the steps of a batch of sequences, which a kernel has as [B, T] and a caller as [T, B]. One axis may be that of the
// directions in which layers read: the steps of the second one are taken in reverse, and may lie in an array of their own.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

template <int width>  // bytes of a vector: 2, 4, 8 or 16, which divides a row
struct MovedRows {
    static constexpr int threads = 256, axes = 4;

    const unsigned char* from;
    const unsigned char* second;  // where the rows of the second direction are, or null: behind those of the first
    unsigned char* to;
    int vectors;        // of a row
    int sizes[axes];    // of `to`, outermost first; fewer than 2^31 rows in all
    int strides[axes];  // of `from`, in rows
    int direction;      // the axis of directions, and that of the steps that the second one has in reverse; -1 for none
    int reversed;

    /// A thread takes a vector: kernelgen/schedules/shared/moved_rows.py launches one for each.
    TILESMITH_DEVICE void run() const {
        const long long at = static_cast<long long>(block_x()) * threads + static_cast<long long>(thread_index());
        const long long row = at / vectors;
        if (row >= static_cast<long long>(sizes[0]) * sizes[1] * sizes[2] * sizes[3]) return;
        int places[axes];
        int rest = static_cast<int>(row);
#pragma unroll
        for (int axis = axes - 1; axis >= 0; --axis) {
            places[axis] = rest % sizes[axis];
            rest /= sizes[axis];
        }
        bool turned = false;
#pragma unroll
        for (int axis = 0; axis < axes; ++axis) turned |= axis == direction && places[axis] != 0;
        long long source = 0;
#pragma unroll
        for (int axis = 0; axis < axes; ++axis) {
            const int place = turned && axis == reversed ? sizes[axis] - 1 - places[axis] : places[axis];
            source += static_cast<long long>(place) * strides[axis];
        }
        const unsigned char* rows = turned && second != nullptr ? second : from;
        copy(to + at * width, rows + (source * vectors + at % vectors) * width);
    }

    TILESMITH_DEVICE static void copy(unsigned char* to, const unsigned char* from) {
        if constexpr (width == 16)
            store_global_128(to, load_global_128(from));
        else if constexpr (width == 8)
            store_global_64(to, load_global_64(from));
        else if constexpr (width == 4)
            store_global_32(to, load_global_32(from));
        else
            store_global_16(to, load_global_16(from));
    }
};

}  // namespace tilesmith
