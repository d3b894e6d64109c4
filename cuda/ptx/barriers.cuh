// Barriers of a block and of a warp.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// All threads of the block meet.
TILESMITH_DEVICE void sync_block() { __syncthreads(); }

/// `threads` threads (whole warps) meet at named barrier `id` (1 to 15; 0 is sync_block's).
TILESMITH_DEVICE void sync_named(unsigned id, unsigned threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Signal named barrier `id` without waiting; earlier shared-memory writes are visible to those who wait.
TILESMITH_DEVICE void arrive_named(unsigned id, unsigned threads) {
    asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The 32 threads of the warp meet.
TILESMITH_DEVICE void sync_warp() { __syncwarp(); }

}  // namespace tilesmith
