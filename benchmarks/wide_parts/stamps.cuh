// In the place of cuda/stamps.cuh where benchmarks/wide_parts.py looks into steps: every mark of every step leaves the clock, of
// all warps of some blocks. What it writes disturbs the step more than one mark would; the whole of a step does not move much.
#pragma once

#include "ptx.cuh"

#define TILESMITH_STAMPED(...) __VA_ARGS__

namespace tilesmith {

enum class Phase { exchange, matrix, sums, pointwise, transfers, meeting };

struct Stamps {
    static constexpr unsigned blocks = 8, warps = 16, steps = 128, marks = 32;

    unsigned* record;  // of a warp: [step][mark]; null for those that leave none
    int step_number, passed;

    TILESMITH_DEVICE void start(unsigned* all, bool) {
        const unsigned block = block_x() + blocks_x() * block_y(), every = (blocks_x() * gridDim.y + blocks - 1) / blocks;
        const unsigned warp = thread_index() / 32;
        record = block % every == 0 && thread_index() % 32 == 0 ? all + (block / every * warps + warp) * steps * marks : nullptr;
        step_number = passed = 0;
        put(static_cast<int>(marks) - 1);
    }
    TILESMITH_DEVICE void put(int place) const {
        if (record == nullptr || step_number >= static_cast<int>(steps)) return;
        asm volatile("st.global.u32 [%0], %1;" ::"l"(record + step_number * marks + place), "r"(static_cast<unsigned>(read_clock())) : "memory");
    }
    TILESMITH_DEVICE void mark(Phase) { put(passed++); }
    TILESMITH_DEVICE void skip(int count) { passed += count; }
    TILESMITH_DEVICE void step(Phase) {
        put(passed);
        passed = 0;
        ++step_number;
    }
    TILESMITH_DEVICE void finish() const {}
};

}  // namespace tilesmith
