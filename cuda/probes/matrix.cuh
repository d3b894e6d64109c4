// mma.m16n8k16 in chains, each waiting for the one before of its chain: one chain of one warp has their latency, several of
// several warps on each sub-partition of the multiprocessor have their rate.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

template <int warps, int chains>
struct Matrix {
    static constexpr int threads = 32 * warps;
    static constexpr int shared_bytes = 4 * threads;
    static constexpr int sub_partitions = warps < 4 ? 1 : 4;  // that have as many warps each
    static constexpr int operations = unrolled * warps / sub_partitions;  // of a sub-partition
    static_assert(warps == 1 || warps % 4 == 0, "every sub-partition has as many warps");
    static_assert(unrolled % chains == 0, "every chain has as many");

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const unsigned word = thread_index() & 1;  // tiny numbers, which the compiler does not know
        const unsigned a[4] = {word, word, word, word};
        float d[chains][4] = {};
        Timer timer;
        timer.begin();
        for (int round = 0; round < in.rounds; ++round)
#pragma unroll
            for (int i = 0; i < unrolled; ++i) mma_m16n8k16<bf16>(d[i % chains], a, word, word, d[i % chains]);
        float sum = 0;
#pragma unroll
        for (int chain = 0; chain < chains; ++chain) sum += d[chain][0] + d[chain][1] + d[chain][2] + d[chain][3];
        use(sum);
        timer.end(in);
    }
};

}  // namespace tilesmith::probes
