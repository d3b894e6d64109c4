// The exchange of h through L2 as grid_mail.cuh has it: words that every block polls for and stores its part of, and one meeting
// of the block a round. Every round has a slot of its own, so that nothing need be poisoned.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

template <int blocks>
struct ExchangeGrid {
    static constexpr int threads = 384;
    static constexpr int shared_bytes = 0;
    static constexpr int operations = 1;
    static constexpr int words = 3072;  // 12 KB, gathered by every block
    static constexpr int polls = words / 4 / threads;
    static constexpr int own = words / blocks;
    static_assert(own * blocks == words && own <= threads, "every block sends as much, a thread a word");

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const int thread = static_cast<int>(thread_index());
        unsigned* to = in.mail + block_x() * own + thread;
        if (thread < own) send_global_32(to, 0);
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round) {
            const unsigned* slot = in.mail + static_cast<long long>(round) * words + 4 * thread;
            unsigned newest = 0;
            for (unsigned again = 0;;) {
                uint4 chunk[polls];
#pragma unroll
                for (int i = 0; i < polls; ++i) chunk[i] = poll_global_128(slot + 4 * threads * i);
                newest = 0;
#pragma unroll
                for (int i = 0; i < polls; ++i)
                    newest = max(newest, max(max(chunk[i].x, chunk[i].y), max(chunk[i].z, chunk[i].w)));
                if (!any_lane(newest == poison)) break;
                poll_again(again);
            }
            sync_block();
            to += words;
            if (thread < own) send_global_32(to, (newest + 1) & 0xffffu);
        }
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
