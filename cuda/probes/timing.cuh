// What all microbenchmarks share: their arguments, and how they are timed. Each is a struct of constants (threads, shared_bytes,
// operations: of what is timed, in a round) and run(); kernelgen/probing/catalogue.py says with which numbers.
#pragma once

#include "ptx.cuh"

namespace tilesmith::probes {

struct Arguments {
    unsigned long long* clocks;  // [blocks], of all rounds
    int rounds;
    unsigned* mail = nullptr;          // all poison
    unsigned* counters = nullptr;      // 0xffffffff
    const unsigned char* inputs = nullptr;
    unsigned char* results = nullptr;
};

constexpr int unrolled = 32;  // of a loop, so that its own instructions do not count

/// Stores a block's clocks.
TILESMITH_DEVICE void store_clocks(const Arguments& in, unsigned long long clocks) {
    if (thread_index() == 0)
        store_global_64(in.clocks + block_x(), uint2{static_cast<unsigned>(clocks), static_cast<unsigned>(clocks >> 32)});
}

/// From one meeting of the block's threads to another.
struct Timer {
    unsigned long long start;

    TILESMITH_DEVICE void begin() {
        sync_block();
        start = read_clock();
    }
    TILESMITH_DEVICE void end(const Arguments& in) const {
        sync_block();
        store_clocks(in, read_clock() - start);
    }
};

/// What a chain of instructions has come to is used, before what follows: it is neither left out nor moved behind that.
TILESMITH_DEVICE void use(unsigned value) { store_shared_32(shared_memory() + 4 * thread_index(), value); }
TILESMITH_DEVICE void use(float value) { use(__float_as_uint(value)); }

}  // namespace tilesmith::probes
