// What sequences of a batch have of their own: steps before which their states are the initial ones again, and ends.
//
// A warp knows of a tile's sequences by masks, a bit for each row, which all lanes have. Where a step takes a few hundred
// clocks, it cannot afford a branch of its own: ResetRows has the masks of 32 steps, from the flags that ResetFlags brings, and
// what rarer there is to be done is done where a schedule's loop over ordinary steps ends. Elsewhere lane n loads what is of row n two steps before it is asked for (Restarts).
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

/// How many steps the longest of `rows` sequences has, from place `first` on; one at least. By a warp.
template <Sequences sequences, class Arguments>
TILESMITH_DEVICE int longest(const Arguments& in, int first, int rows, int lane) {
    if constexpr (!sequences.lengths) return in.seq;
    int steps = 1;
    for (int place = first + lane; place < minimum(first + rows, in.batch); place += 32) {
        const int length = static_cast<int>(load_global_32(in.lengths + sequence_at<sequences>(in, place)));
        steps = maximum(steps, minimum(length, in.seq));
    }
    return greatest_of_lanes(steps);
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
        if constexpr (sequences.lengths)
            steps = longest<sequences>(in, tile_first, tile_rows, lane);
        else if constexpr (sequences.resets)
            steps = tile_first < in.batch ? in.seq : 1;  // all tiles are; the argument itself would be loaded in every step
    }

    /// Where the sequence ends that this lane's number is the row of; where there is none, never. first: as prepare has it.
    template <class Arguments>
    TILESMITH_DEVICE int end_of_lane(const Arguments& in, int first, int lane) const {
        return lane < rows && first + lane < in.batch ? end : in.seq + 1;
    }

    /// Where the sequence of a row ends; 0 where there is none. By all lanes of a warp, each of any row.
    TILESMITH_DEVICE int end_of(int row) const { return static_cast<int>(shuffle(static_cast<unsigned>(end), row)); }

    /// The first end from step t on.
    template <class Arguments>
    TILESMITH_DEVICE int least_end(const Arguments& in, int first, int lane, int t) const {
        const int of_lane = end_of_lane(in, first, lane);
        return least_of_lanes(of_lane < t ? in.seq + 1 : of_lane);
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

/// The resets of a tile on their way to those who run it: bytes [row][step modulo 256] in shared memory, copied 128 steps at a
/// time. `sharers` threads of `Who` share the copies.
template <Sequences sequences, int rows, int sharers, class Who = WholeBlock>
struct ResetFlags {
    static constexpr int part = 128, kept = 2 * part;  // steps
    static constexpr int row_bytes = kept + 4;         // rows begin in different banks
    static constexpr int bytes = sequences.resets ? ceil_div(rows * row_bytes, chunk_bytes) * chunk_bytes : 0;

    SharedAddress at;

    /// Begin copying a part, steps part * number and on; zeros for what is no step of a sequence. first_row: the first place in
    /// the batch.
    template <class Arguments>
    TILESMITH_DEVICE void begin_copy(const Arguments& in, int first_row, int number) const {
        if constexpr (sequences.resets) {
            if (number < 0) return;
            const bool aligned = (reinterpret_cast<unsigned long long>(in.resets) | static_cast<unsigned>(in.seq)) % 4 == 0;
#pragma unroll 1
            for (int word = Who::thread(); word < part / 4 * rows; word += sharers) {
                const int row = word / (part / 4), t = part * number + 4 * (word % (part / 4));
                const SharedAddress to = at + row * row_bytes + (t & kept - 1);
                int end = 0;
                const unsigned char* flags = in.resets;
                if (first_row + row < in.batch) {
                    const int sequence = sequence_at<sequences>(in, first_row + row);
                    end = in.seq;
                    if constexpr (sequences.lengths) end = minimum(static_cast<int>(load_global_32(in.lengths + sequence)), end);
                    flags += static_cast<long long>(sequence) * in.seq;
                }
                if (aligned && t + 4 <= end) {
                    cp_async<4>(to, flags + t);
                } else {
                    unsigned four = 0;
#pragma unroll 1
                    for (int i = 0; i < 4; ++i)
                        if (t + i < end) four |= (load_global_8(flags + t + i) != 0 ? 1u : 0u) << 8 * i;
                    store_shared_32(to, four);
                }
            }
        }
    }

    /// The rows that begin anew at step t, which is this lane's own; none if that is not one of the tile's `steps`.
    TILESMITH_DEVICE unsigned rows_of(int t, int steps) const {
        if (t < 0 || t >= steps) return 0;
        const SharedAddress first = at + (t & kept - 1);
        unsigned found = 0;
#pragma unroll
        for (int row = 0; row < rows; ++row) found |= (load_shared_8(first + row * row_bytes) != 0 ? 1u : 0u) << row;
        return found;
    }

};

/// The rows that begin anew at each of 32 steps, a bit each: lane n has those of the n-th. Who goes through the steps one by one,
/// forward (1) or backward (-1), looks them up once in 32, and asks without a branch.
template <Sequences sequences, int direction>
struct ResetRows {
    static constexpr int count = 32;
    unsigned of_lane = 0;

    /// first: the first of these steps, of `steps`. By all lanes of a warp, as `at`.
    template <class Flags>
    TILESMITH_DEVICE void look_up(const Flags& flags, int first, int steps, int lane) {
        if constexpr (sequences.resets) of_lane = flags.rows_of(first + direction * lane, steps);
    }

    /// Those of the n-th step, counted from any that were the first.
    TILESMITH_DEVICE unsigned at(int n) const {
        if constexpr (!sequences.resets) return 0;
        return shuffle(of_lane, n);
    }
};

/// What the sequences of a tile have of their own in one step, in shared memory, for tiles of any number of rows. It lies in two
/// places in turn: who looks up a step's may be ahead of who reads those of the step before, but not by two.
template <Sequences sequences, int rows>
struct StepSequences {
    static constexpr bool any = sequences.resets || sequences.lengths;
    static constexpr int place_bytes = any ? 3 * 4 * rows : 0;  // [what][row]: number, end, flags
    static constexpr int bytes = 2 * place_bytes;

    SharedAddress first;
    SharedAddress at = first;

    /// To be followed by a meeting of the `threads`. first_row: the tile's first place in the batch.
    template <class Arguments>
    TILESMITH_DEVICE void look_up(const Arguments& in, int first_row, int t, int thread, int threads) {
        if constexpr (any) {
            at = at == first ? first + place_bytes : first;
            for (int row = thread; row < rows; row += threads) {
                const int number = sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
                int end = in.seq;
                if constexpr (sequences.lengths)
                    end = minimum(static_cast<int>(load_global_32(in.lengths + number)), in.seq);
                if (first_row + row >= in.batch) end = 0;
                unsigned flags = 0;
                if constexpr (sequences.resets) {
                    const unsigned char* resets = in.resets + static_cast<long long>(number) * in.seq;
                    if (t >= 0 && t < end) flags = load_global_8(resets + t);
                    if (t + 1 >= 0 && t + 1 < end) flags |= load_global_8(resets + t + 1) << 1;
                }
                store_shared_32(at + 4 * row, static_cast<unsigned>(number));
                store_shared_32(at + 4 * (rows + row), static_cast<unsigned>(end));
                store_shared_32(at + 4 * (2 * rows + row), flags);
            }
        }
    }

    TILESMITH_DEVICE int number(int row) const { return static_cast<int>(load_shared_32(at + 4 * row)); }

    /// Whether step t is one of the sequence's.
    TILESMITH_DEVICE bool runs(int row, int t) const {
        if constexpr (sequences.lengths) return t < static_cast<int>(load_shared_32(at + 4 * (rows + row)));
        return true;
    }
    /// Whether the states before the step are the initial ones; and those before the step after it.
    TILESMITH_DEVICE bool begins(int row) const {
        if constexpr (sequences.resets) return (load_shared_32(at + 4 * (2 * rows + row)) & 1) != 0;
        return false;
    }
    TILESMITH_DEVICE bool begins_next(int row) const {
        if constexpr (sequences.resets) return (load_shared_32(at + 4 * (2 * rows + row)) & 2) != 0;
        return false;
    }
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
