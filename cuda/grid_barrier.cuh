// Who waits for whom among the blocks of a launch that all run at the same time: counters in global memory, which
// every block that has stored its part of a step's results counts up, and that a block looks at before it reads all parts.
//
// Counters start as 0xffffffff: the executor sees to that before every launch. They count on from step to step.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

struct GridBarrier {
    static constexpr int words = 32;  // from one counter to the next: 128 bytes, so that no two share a line

    /// The calling block has stored its part: all of its threads meet, and say so.
    TILESMITH_DEVICE static void arrive(unsigned* counter) {
        sync_block();  // all have stored
        if (thread_index() == 0) signal_global(counter);
    }

    /// All threads of a block wait until a counter has been counted up so many times since the launch began.
    TILESMITH_DEVICE static void wait(const unsigned* counter, unsigned times) {
        if (thread_index() == 0) wait_alone(counter, times);
        sync_warp();
        sync_block();
    }

    /// The calling thread alone waits.
    TILESMITH_DEVICE static void wait_alone(const unsigned* counter, unsigned times) {
        for (unsigned rounds = 0; static_cast<int>(poll_signals(counter) + 1u - times) < 0;) poll_again(rounds);
    }
};

}  // namespace tilesmith
