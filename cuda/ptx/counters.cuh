// Counters in global memory: who is done with what (sm_70 and newer).
//
// All blocks of a launch reach them. Unlike a message, a signal orders everything: what the threads that the signalling one
// has met have stored before, who has seen the signal, or has met one that has, may load.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Add 1 to a counter.
TILESMITH_DEVICE void signal_global(unsigned* counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

/// What a counter has come to; see poll_again.
TILESMITH_DEVICE unsigned poll_signals(const unsigned* counter) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

}  // namespace tilesmith
