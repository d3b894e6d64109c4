// The exchange of partial sums in a cluster as cluster_backward.cuh has it, by the same functions (gradient_mail.cuh): the warps
// that own units add up what all blocks have sent, the block meets, every warp sends its part, and the slot that was read is
// poisoned.
#pragma once

#include "gradient_mail.cuh"
#include "probes/timing.cuh"

namespace tilesmith::probes {

/// For 4 sequences. bytes: what each block receives in a round.
template <int cluster, int bytes, int warps>
struct ExchangeSums {
    static constexpr int unit_warps = bytes / (256 * cluster);  // that own 16 units each
    static constexpr int slots = 3;
    using Mail = GradientMail<4, cluster, unit_warps, 16, slots>;
    static constexpr int threads = 32 * warps;
    static constexpr int shared_bytes = Mail::bytes;
    static constexpr int operations = 1;
    static constexpr int tiles = cluster * unit_warps / warps;  // that a warp sends
    static_assert(Mail::slot_bytes == bytes && unit_warps <= warps, "so much is received by the warps that own units");
    static_assert(tiles * warps == cluster * unit_warps, "every warp sends as much");

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const int thread = static_cast<int>(thread_index()), warp = thread / 32, lane = thread % 32;
        const int rank = static_cast<int>(cluster_rank());
        const SharedAddress mail = shared_memory();
        ClusterAddress to[tiles];
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
            const int count = warp * tiles + tile;
            to[tile] = cluster_address(mail + Mail::place(count % unit_warps, rank, lane), (rank + 1 + count / unit_warps) % cluster);
        }
        for (int slot = 0; slot < slots; ++slot) Mail::poison_slot(mail + slot * Mail::slot_bytes, thread, threads);
        typename Mail::Sums sums = {{1.0f, 0.0f, 1.0f, 0.0f}};
        int slot = 0, received = (slots - 1) * Mail::slot_bytes;
        sync_cluster();  // every block has poison where it waits for messages
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round) {
            if (warp < unit_warps && round > 0) {
                Mail::receive(sums, mail + received + Mail::place(warp, 0, lane));
                for (float& sum : sums[0]) sum *= 1.0f / cluster;
            }
            sync_block();
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) Mail::send(to[tile] + slot, sums);
            Mail::poison_slot(mail + received, thread, threads);
            received = slot;
            slot = Mail::after(slot);
        }
        timer.end(in);
        sync_cluster();  // the last messages have come
    }
};

}  // namespace tilesmith::probes
