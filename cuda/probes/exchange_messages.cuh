// The exchange of h in a cluster as hidden_mail.cuh has it: every warp polls for all that the blocks have sent, sends its own
// part to all of them, and poisons the slot of the step before. Here by stores of 16 bytes, and nothing else is done.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

/// bytes: what each block has of a round. k_split: warps that poll for a part each; they meet before they go on.
template <int cluster, int bytes, int warps, int k_split>
struct ExchangeMessages {
    static constexpr int threads = 32 * warps;
    static constexpr int slots = 4;
    static constexpr int shared_bytes = slots * bytes;
    static constexpr int operations = 1;

    static constexpr int chunks = bytes / 16;
    static constexpr int own = chunks / cluster / warps;  // that a warp sends, to every block
    static constexpr int sends = (own * cluster + 31) / 32;  // of a lane
    static constexpr int part = chunks / k_split;
    static constexpr int polls = part / 32;  // of a lane
    static_assert(own * cluster * warps == chunks, "every warp sends as much");
    static_assert(polls * 32 == part && warps % k_split == 0, "every lane polls as much");
    static_assert(k_split == 1 || warps / k_split <= 15, "there are 15 named barriers");

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const int thread = static_cast<int>(thread_index()), warp = thread / 32, lane = thread % 32;
        const int rank = static_cast<int>(cluster_rank());
        const SharedAddress shared = shared_memory();
        for (int i = thread; i < chunks; i += threads) {
            store_shared_128(shared + 16 * i, uint4{0, 0, 0, 0});
            for (int slot = 1; slot < slots; ++slot) poison_128(shared + slot * bytes + 16 * i);
        }
        ClusterAddress to[sends];
        bool sending[sends];
#pragma unroll
        for (int i = 0; i < sends; ++i) {
            const int number = lane + 32 * i;
            sending[i] = number < own * cluster;
            const int chunk = (rank * warps + warp) * own + number % own;
            to[i] = cluster_address(shared + 16 * chunk, (rank + number / own) % cluster);
        }
        const SharedAddress polled = shared + (warp % k_split * part + lane) * 16;
        sync_cluster();  // every block has poison where it waits for messages
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round) {
            const int slot = round % slots * bytes;
            unsigned newest = 0;
            for (unsigned again = 0;;) {
                newest = 0;
#pragma unroll
                for (int i = 0; i < polls; ++i) {
                    const uint4 chunk = poll_128(polled + slot + 512 * i);
                    newest = max(newest, max(max(chunk.x, chunk.y), max(chunk.z, chunk.w)));
                }
                if (!any_lane(newest == poison)) break;
                poll_again(again);
            }
            if constexpr (k_split > 1) sync_named(1 + warp / k_split, 32 * k_split);
            const unsigned word = (newest + 1) & 0xffffu;
            const int next = (round + 1) % slots * bytes;
#pragma unroll
            for (int i = 0; i < sends; ++i)
                if (sending[i]) send_128(to[i] + next, uint4{word, word, word, word});
            const int old = (round + slots - 1) % slots * bytes;
            for (int i = thread; i < chunks; i += threads) poison_128(shared + old + 16 * i);
        }
        timer.end(in);
        sync_cluster();  // the last messages have come
    }
};

}  // namespace tilesmith::probes
