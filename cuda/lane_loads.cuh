// A lane's elements of several planes in shared memory, whose rows are sequences of 8 units, 16 bytes.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// words[plane]: columns 2j and 2j + 1 of unit g. at: where 8 sequences of the 8 units begin in the first plane, 16 bytes each.
template <int planes, int count>
TILESMITH_DEVICE void load_lane_words(unsigned (&words)[count], SharedAddress at, int plane_bytes, int lane) {
    static_assert(planes <= count, "a word of each plane");
    const SharedAddress row = at + lane % 8 * chunk_bytes;
#pragma unroll
    for (int first = 0; first < planes; first += 4) {
        const int some = minimum(planes - first, 4);
        const SharedAddress from = row + minimum(first + lane / 8, planes - 1) * plane_bytes;
        unsigned found[4];
        if (some == 1) {
            ldmatrix_x1_trans(found[0], from);
        } else if (some == 2) {
            unsigned two[2];
            ldmatrix_x2_trans(two, from);
            found[0] = two[0], found[1] = two[1];
        } else {
            ldmatrix_x4_trans(found, from);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (i < some) words[first + i] = found[i];
    }
}

}  // namespace tilesmith
