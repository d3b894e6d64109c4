// All blocks of a launch meet: each adds 1 to a counter in L2, and one of its threads looks at it until all have.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

template <int blocks>
struct GridBarrier {
    static constexpr int threads = 256;
    static constexpr int shared_bytes = 0;
    static constexpr int operations = 1;

    TILESMITH_DEVICE static void run(const Arguments& in) {
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round) {
            sync_block();
            if (thread_index() == 0) {
                signal_global(in.counters);
                const unsigned wanted = static_cast<unsigned>(round + 1) * blocks;
                for (unsigned again = 0; static_cast<int>(poll_signals(in.counters) + 1u - wanted) < 0;) poll_again(again);
            }
            sync_warp();
            sync_block();
        }
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
