// Bulk copies from global memory to the shared memory of blocks of a cluster, and the barriers in shared memory that count
// what has come (sm_90 and newer): cp.async.bulk and mbarrier.
//
// A barrier's phase ends when as many arrivals have been made as it was begun with, and as many bytes have come as they said to
// expect; then the next begins. Who waits for a phase, by its parity, has before it what those who arrived did before, and the
// bytes that came.
#pragma once

#include "ptx/clusters.cuh"

namespace tilesmith {

/// Bytes of a barrier, which begins at a multiple of that.
inline constexpr int transfer_barrier_bytes = 8;

/// Begin a barrier of so many arrivals a phase. To be followed by fence_transfer_barriers and a meeting of all who use it.
TILESMITH_DEVICE void begin_transfer_barrier(SharedAddress barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// The barriers that the calling thread has begun are there for copies, and for the other blocks of the cluster.
TILESMITH_DEVICE void fence_transfer_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Arrive at a barrier of the block's own; the phase ends only when so many bytes more have come.
TILESMITH_DEVICE void arrive_and_expect(SharedAddress barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Arrive at a barrier of any block of the cluster, which must outlive it (sync_cluster).
TILESMITH_DEVICE void arrive_at(ClusterAddress barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Whether the phase of that parity (0: the first, third, ...) has ended; see poll_again.
TILESMITH_DEVICE bool phase_ended(SharedAddress barrier, unsigned parity) {
    unsigned ended;
    asm volatile(
        "{.reg .pred ended; mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2; selp.u32 %0, 1, 0, ended;}"
        : "=r"(ended)
        : "r"(barrier), "r"(parity)
        : "memory");
    return ended != 0;
}
/// The same of a barrier at which other blocks of the cluster arrive.
TILESMITH_DEVICE bool phase_ended_in_cluster(SharedAddress barrier, unsigned parity) {
    unsigned ended;
    asm volatile(
        "{.reg .pred ended; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%1], %2; selp.u32 %0, 1, 0, ended;}"
        : "=r"(ended)
        : "r"(barrier), "r"(parity)
        : "memory");
    return ended != 0;
}

/// What the calling thread knows to have been stored in global memory, bulk copies that it asks for from now on see.
TILESMITH_DEVICE void fence_global_for_copies() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/// Copy bytes, a multiple of 16, to the same place in each of the first `blocks` blocks of the cluster when the hardware finds
/// the time, and count them at the barrier that has this address there. Until then the source may not be stored to, nor the
/// destination be touched. blocks: 1 is the calling block, in whatever cluster.
template <int blocks>
TILESMITH_DEVICE void copy_to_blocks(SharedAddress destination, const void* source, unsigned bytes, SharedAddress barrier) {
    if constexpr (blocks == 1)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
                     "l"(source), "r"(bytes), "r"(barrier)
                     : "memory");
    else
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
                destination),
            "l"(source), "r"(bytes), "r"(barrier), "h"(static_cast<unsigned short>((1u << blocks) - 1))
            : "memory");
}

}  // namespace tilesmith
