// What sequences of a batch have of their own: steps before which their states are the initial ones again, and ends.
//
// A warp knows of a tile's sequences by masks, a bit for each row, which all lanes have. Lane n loads what is of row n, two
// steps before it is asked for, so that nobody waits for it.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// The number of the sequence at a place of the batch: those of like lengths share tiles.
template <Sequences sequences, class Arguments>
TILESMITH_DEVICE int sequence_at(const Arguments& in, int place) {
    if constexpr (sequences.lengths)
        return static_cast<int>(load_global_32(in.order + place));
    else
        return place;
}

/// The sequences of a tile of `rows`.
template <Sequences sequences, int rows>
struct TileSequences {
    static_assert(rows <= 32, "a mask has 32 bits");

    int steps;                             // that the tile runs: in.seq, or those of its longest sequence, one at least
    int end = 0;                           // of the sequence that this lane's number is the row of; 0 where there is none
    const unsigned char* flags = nullptr;  // its resets

    /// first: the first place in the batch of these rows. They are some of a tile's, of tile_rows from tile_first on, all of
    /// which run as many steps.
    template <int tile_rows = rows, class Arguments>
    TILESMITH_DEVICE void prepare(const Arguments& in, int first, int lane, int tile_first) {
        if constexpr (sequences.resets || sequences.lengths) {
            if (lane < rows && first + lane < in.batch) {
                const int sequence = sequence_at<sequences>(in, first + lane);
                end = in.seq;
                if constexpr (sequences.lengths)
                    end = maximum(0, minimum(static_cast<int>(load_global_32(in.lengths + sequence)), in.seq));
                if constexpr (sequences.resets) flags = in.resets + static_cast<long long>(sequence) * in.seq;
            }
        }
        if constexpr (sequences.lengths) {
            steps = maximum(1, end);
            if constexpr (tile_rows != rows)
                for (int row = lane; row < tile_rows && tile_first + row < in.batch; row += 32) {
                    const int sequence = sequence_at<sequences>(in, tile_first + row);
                    steps = maximum(steps, minimum(static_cast<int>(load_global_32(in.lengths + sequence)), in.seq));
                }
#pragma unroll
            for (int lanes = 16; lanes > 0; lanes /= 2)
                steps = maximum(steps, static_cast<int>(__float_as_uint(
                                           shuffle_xor(__uint_as_float(static_cast<unsigned>(steps)), lanes))));
        }
    }

    /// The rows of which step t is one of the sequence's.
    TILESMITH_DEVICE unsigned running(int t) const {
        if constexpr (sequences.lengths)
            return ballot(t < end);
        else
            return ~0u;
    }

    /// Whether the lane's row begins anew at step t.
    TILESMITH_DEVICE unsigned flag(int t) const { return t >= 0 && t < end ? load_global_8(flags + t) : 0; }
};

/// The rows that begin anew, for one step after another, forward (1) or backward (-1).
template <Sequences sequences, int rows, int direction>
struct Restarts {
    unsigned next = 0, after = 0;

    /// t: the first step that will be asked for.
    TILESMITH_DEVICE void begin(const TileSequences<sequences, rows>& tile, int t) {
        if constexpr (sequences.resets) {
            next = tile.flag(t);
            after = tile.flag(t + direction);
        }
    }

    /// Those of step t.
    TILESMITH_DEVICE unsigned take(const TileSequences<sequences, rows>& tile, int t) {
        if constexpr (sequences.resets) {
            const unsigned mask = ballot(next != 0);
            next = after;
            after = tile.flag(t + 2 * direction);
            return mask;
        }
        return 0;
    }
};

}  // namespace tilesmith
