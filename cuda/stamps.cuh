// Where the clocks of a step go. A kernel that is compiled with TILESMITH_STAMPS defined as N reads the clock where each step
// begins and at the step's mark N, and adds up what lies between. One binary for each mark, so that no more than two reads
// disturb a step, whose parts overlap otherwise. Without it TILESMITH_STAMPED(...) is nothing, and no trace is compiled.
//
// Every warp reads the clock, so that none is later than the others for it; the first of each of the first blocks leaves a record.
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
    static constexpr unsigned blocks = 8;  // the first of the grid leave records
    static constexpr int words = 12;       // of a record
    static constexpr int trials = 16;      // reads that are timed

    unsigned* record;  // null for warps that leave none
    unsigned long long first_clock, first_time;
    unsigned begin, cost, total, steps;
    int passed, marks, ended;  // of this step; of the step before; the phase that ends at the mark

    TILESMITH_DEVICE static unsigned now() { return static_cast<unsigned>(read_clock()); }

    /// Before the first step. all: [blocks][words]. leads: whether the calling warp is the block's first.
    TILESMITH_DEVICE void start(unsigned* all, bool leads) {
        const unsigned block = block_x() + blocks_x() * block_y();
        record = leads && block < blocks ? all + block * words : nullptr;
        total = steps = 0;
        passed = marks = ended = 0;
        const unsigned before = now();
#pragma unroll
        for (int i = 0; i < trials; ++i) begin = now();
        cost = begin - before;
        first_time = read_nanoseconds();
        first_clock = read_clock();
        begin = now();
    }

    /// The phase ends here; the next begins.
    TILESMITH_DEVICE void mark(Phase phase) {
        if (passed == TILESMITH_STAMPS) {
            total += now() - begin;
            ended = static_cast<int>(phase);
        }
        ++passed;
    }

    /// Marks that this warp does not come by.
    TILESMITH_DEVICE void skip(int count) { passed += count; }

    /// The step ends here, with this phase.
    TILESMITH_DEVICE void step(Phase phase) {
        const unsigned clock = now();
        if (passed == TILESMITH_STAMPS) {
            total += clock - begin;
            ended = static_cast<int>(phase);
        }
        begin = clock;
        marks = passed + 1;
        passed = 0;
        ++steps;
    }

    /// After the last step.
    TILESMITH_DEVICE void finish() {
        if (record == nullptr || thread_index() % 32 != 0) return;
        const unsigned long long clocks = read_clock() - first_clock, time = read_nanoseconds() - first_time;
        store_global_128(record, uint4{steps, static_cast<unsigned>(marks), static_cast<unsigned>(ended), total});
        store_global_128(record + 4, uint4{cost, 0, static_cast<unsigned>(clocks), static_cast<unsigned>(clocks >> 32)});
        store_global_128(record + 8, uint4{static_cast<unsigned>(time), static_cast<unsigned>(time >> 32), 0, 0});
    }
};

}  // namespace tilesmith
#endif
