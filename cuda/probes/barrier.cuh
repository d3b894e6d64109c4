// All threads of a block meet, again and again.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

/// shared: bytes that the block takes besides, for nothing.
template <int block_threads, int shared = 0>
struct Barrier {
    static constexpr int threads = block_threads;
    static constexpr int shared_bytes = shared;
    static constexpr int operations = unrolled;

    TILESMITH_DEVICE static void run(const Arguments& in) {
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round)
#pragma unroll
            for (int i = 0; i < operations; ++i) sync_block();
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
