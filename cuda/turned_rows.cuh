// Rows in the other order: what lies as [outer][inner] rows is written as [inner][outer], such as the steps of a batch of
// sequences, which a kernel has as [B, T] and a caller as [T, B].
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

template <int width>  // bytes of a vector: 2, 4, 8 or 16, which divides a row
struct TurnedRows {
    static constexpr int threads = 256;
    static constexpr int warps = threads / 32;

    const unsigned char* from;
    unsigned char* to;
    int outer, inner;
    int vectors;  // of a row

    /// A warp takes a row that is written at a time: kernelgen/schedules/shared/turned_rows.py launches one for each.
    TILESMITH_DEVICE void run() const {
        const int thread = static_cast<int>(thread_index());
        const long long row = static_cast<long long>(block_x()) * warps + thread / 32;
        if (row >= static_cast<long long>(outer) * inner) return;
        const long long source = row % outer * inner + row / outer;
        for (int i = thread % 32; i < vectors; i += 32)
            copy(to + (row * vectors + i) * width, from + (source * vectors + i) * width);
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
