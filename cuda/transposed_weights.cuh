// R of one head, transposed, as the stationary matrix of a warp: its rows are previous units p, its k gates of units, so
// that it turns the gates' gradients into that of the previous h.
#pragma once

#include "recurrence.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// Of a warp's scratch memory, which holds 8 elements of the rows of a k-tile.
inline constexpr int transposed_scratch_bytes = 32 * chunk_bytes;

/// Load this lane's part. R is read along its rows, 16 bytes a lane, and turned in `scratch`, shared memory of the
/// warp's own; what stays in shared memory goes to `at`. first(tile): the first previous unit of a tile. place(k, gate, unit):
/// which recurrent product, counted among them, and unit of the head a k of this warp's is; any other unit is padding.
template <FixedShape shape, int recurrent_gates, class Matrix, class Word, class First, class Place>
TILESMITH_DEVICE void load_transposed(Matrix& weights, const Word* r, int head, SharedAddress at, SharedAddress scratch,
                                      int lane, First first, Place place) {
    constexpr int D = shape.head_dim, bytes = sizeof(Word);
    constexpr int row_lanes = bytes / 2, elements = chunk_bytes / bytes;  // that have 8 elements of a row; of each of them
    const int g = lane / 4, j = lane % 4;
    const auto row = [&](int tile, int k_tile, int upper) {
        int gate, u;
        place(Matrix::k_tile_depth * k_tile + lane / row_lanes, gate, u);
        const int p = first(tile) + 8 * upper + lane % row_lanes * elements;
        const bool valid = gate < recurrent_gates && u < D && p < D;
        const long long row = (static_cast<long long>(valid ? gate : 0) * shape.heads + head) * D + (valid ? u : 0);
        const uint4 along = load_chunk_of_row<D>(r + row * D + (valid ? p : 0), valid ? D - p : 0);
        sync_warp();  // the turn before is read
        store_shared_128(scratch + lane * chunk_bytes, along);
        sync_warp();
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (bytes == 2) {
                const SharedAddress from = scratch + (8 * j + 2 * i) * chunk_bytes + 2 * g;
                words[i] = load_shared_16(from) | static_cast<unsigned>(load_shared_16(from + chunk_bytes)) << 16;
            } else {
                words[i] = load_shared_32(scratch + (4 * j + i) * row_lanes * chunk_bytes + 4 * g);
            }
        }
        return uint4{words[0], words[1], words[2], words[3]};
    };
    if constexpr (Matrix::loads_in_turn)
        weights.load_in_turn(at, lane, row);
    else
        weights.load(at, lane, row);
}

}  // namespace tilesmith
