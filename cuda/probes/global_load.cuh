// A recurrent kernel's traffic with device memory: a block asks for a step's inputs of 16 sequences by asynchronous copies,
// waits for all of them, and writes a quarter as much. Timed is from the issue to the end of the wait of its last thread.
#pragma once

#include "probes/timing.cuh"

namespace tilesmith::probes {

/// Nothing is read twice: the inputs are [sequence][round][block][16 chunks], the results [sequence][round][block][4 chunks].
template <int blocks>
struct GlobalLoad {
    static constexpr int threads = 256;
    static constexpr int shared_bytes = 16 * threads;
    static constexpr int operations = 1;
    static constexpr int sequences = 16;
    static constexpr int chunks = threads / sequences;  // of 16 bytes, of a sequence and step

    TILESMITH_DEVICE static void run(const Arguments& in) {
        const int thread = static_cast<int>(thread_index());
        const SharedAddress own = shared_memory() + 16 * thread;
        const int sequence = thread / chunks, chunk = thread % chunks;
        const long long first = (static_cast<long long>(sequence) * in.rounds * blocks + block_x()) * chunks + chunk;
        const unsigned char* input = in.inputs + 16 * first;
        const long long first_result = (static_cast<long long>(sequence) * in.rounds * blocks + block_x()) * (chunks / 4) + chunk / 4;
        unsigned char* result = in.results + 16 * first_result;
        unsigned long long waited = 0;
        sync_block();
        for (int round = 0; round < in.rounds; ++round) {
            const unsigned long long start = read_clock();
            cp_async<16>(own, input);
            cp_async_commit();
            cp_async_wait<0>();
            sync_block();
            waited += read_clock() - start;
            if (chunk % 4 == 0) store_global_128(result, load_shared_128(own));
            input += 16 * blocks * chunks;
            result += 16 * blocks * (chunks / 4);
            sync_block();
        }
        store_clocks(in, waited);
    }
};

}  // namespace tilesmith::probes
