// Where the clocks of a step go. A kernel that is compiled with TILESMITH_STAMPS defined adds up the clocks from mark to mark,
// by phases, and leaves them for every step, of one warp of each of the first blocks. Without it TILESMITH_STAMPED(...) is
// nothing, and no trace of all this is compiled.
//
// A mark takes time itself: `start` finds out how much, and it is taken off. What leaving a record takes counts for no phase.
// kernelgen/tuning/step_profile.py reads the records.
#pragma once

#include "ptx.cuh"

#ifdef TILESMITH_STAMPS
#define TILESMITH_STAMPED(...) __VA_ARGS__
#else
#define TILESMITH_STAMPED(...)
#endif

#ifdef TILESMITH_STAMPS
namespace tilesmith {

/// What a step consists of; not every kernel has all of them.
enum class Phase { exchange, matrix, sums, pointwise, transfers, meeting };

struct Stamps {
    static constexpr int phases = 6;
    static constexpr unsigned blocks = 8;  // the first of the grid leave records
    static constexpr int words = 8;        // of a record
    static constexpr int trials = 16;      // marks that are timed

    unsigned* record;  // of the step at hand
    unsigned* header;
    bool leaves;  // whether this warp leaves records
    unsigned long long first_clock, first_time;
    unsigned begin, last, cost, marks, steps;
    unsigned clocks[phases];

    TILESMITH_DEVICE static unsigned now() { return static_cast<unsigned>(read_clock()); }

    /// Before the first step. all: [blocks][1 + seq][words]. leads: whether the calling warp is the block's first.
    TILESMITH_DEVICE void start(unsigned* all, int seq, bool leads) {
        const unsigned block = block_x() + blocks_x() * block_y();
        leaves = leads && block < blocks;
        header = all + (leaves ? static_cast<long long>(block) * (1 + seq) * words : 0);
        record = header + words;
        clear();
        cost = steps = 0;
        last = now();
        const unsigned before = last;
#pragma unroll
        for (int i = 0; i < trials; ++i) mark(Phase::matrix);
        cost = (last - before) / trials;
        clear();
        first_time = read_nanoseconds();
        first_clock = read_clock();
        begin = last = now();
    }

    TILESMITH_DEVICE void clear() {
        marks = 0;
#pragma unroll
        for (int i = 0; i < phases; ++i) clocks[i] = 0;
    }

    /// The phase ends here; the next begins.
    TILESMITH_DEVICE void mark(Phase phase) {
        if (!leaves) return;
        const unsigned clock = now();
#pragma unroll
        for (int i = 0; i < phases; ++i)
            if (i == static_cast<int>(phase)) clocks[i] += clock - last - cost;
        last = clock;
        ++marks;
    }

    /// The step ends here, with this phase: leave its record.
    TILESMITH_DEVICE void step(Phase phase) {
        if (!leaves) return;
        mark(phase);
        if (thread_index() % 32 == 0) {
            store_global_128(record, uint4{begin, clocks[0], clocks[1], clocks[2]});
            store_global_128(record + 4, uint4{clocks[3], clocks[4], clocks[5], marks});
        }
        record += words;
        ++steps;
        clear();
        begin = last = now();
    }

    /// After the last step.
    TILESMITH_DEVICE void finish() {
        if (!leaves || thread_index() % 32 != 0) return;
        const unsigned long long all_clocks = read_clock() - first_clock, time = read_nanoseconds() - first_time;
        store_global_128(header, uint4{steps, cost, static_cast<unsigned>(all_clocks), static_cast<unsigned>(all_clocks >> 32)});
        store_global_128(header + 4, uint4{static_cast<unsigned>(time), static_cast<unsigned>(time >> 32), begin, 0});
    }
};

}  // namespace tilesmith
#endif
