// Clusters of blocks (sm_90 and newer).
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Rank of the block in its cluster; 0 where the launch has no clusters.
TILESMITH_DEVICE unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/// How many blocks the cluster has; 1 where the launch, or the GPU, has no clusters.
TILESMITH_DEVICE unsigned cluster_blocks() {
    unsigned blocks = 1;
    if constexpr (architecture >= 90) asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}

/// All threads of all blocks of the cluster meet; what any of them wrote before is visible to all of them after.
TILESMITH_DEVICE void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Load 16 bytes of the shared memory of block `rank` of the cluster, from the address they have there. That memory
/// lives as long as its block does: a sync_cluster() must come between the last such load and the end of the kernel.
TILESMITH_DEVICE float4 load_cluster_float4(SharedAddress address, unsigned rank) {
    unsigned remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    float4 value;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(remote)
                 : "memory");
    return value;
}

/// Shared memory of any block of the cluster; offsets may be added.
using ClusterAddress = unsigned;

/// The place in block `rank` of the cluster that has this address there.
TILESMITH_DEVICE ClusterAddress cluster_address(SharedAddress address, unsigned rank) {
    ClusterAddress remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

}  // namespace tilesmith
