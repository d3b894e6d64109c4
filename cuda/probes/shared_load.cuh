// Loads from shared memory, each from where the one before says.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

struct SharedLoad {
    static constexpr int threads = 32;
    static constexpr int links = 8;  // of a chain that ends where it begins
    static constexpr int shared_bytes = links * threads * 4;
    static constexpr int operations = unrolled;

    TILESMITH_DEVICE static void run(const Arguments& in) {
        SharedAddress at = shared_memory() + 4 * thread_index();
        for (int link = 0; link < links; ++link)
            store_shared_32(at + link * threads * 4, at + (link + 1) % links * threads * 4);
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round)
#pragma unroll
            for (int i = 0; i < operations; ++i) at = load_shared_32(at);
        use(at);
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
