// The twin of ptx/transfers.cuh.
#pragma once

#include "emulate/ptx/clusters.hpp"

namespace tilesmith {

inline constexpr int transfer_barrier_bytes = 8;

inline void begin_transfer_barrier(SharedAddress barrier, unsigned arrivals, Site site = Site::current()) {
    emulate::begin_transfer_barrier(barrier, arrivals, site);
}
inline void fence_transfer_barriers(Site site = Site::current()) { emulate::fence_transfer_barriers(site); }
inline void arrive_and_expect(SharedAddress barrier, unsigned bytes, Site site = Site::current()) {
    emulate::arrive_at_transfer_barrier(barrier, bytes, site);
}
inline void arrive_at(ClusterAddress barrier, Site site = Site::current()) {
    emulate::arrive_at_transfer_barrier(barrier, 0, site);
}
inline bool phase_ended(SharedAddress barrier, unsigned parity, Site site = Site::current()) {
    return emulate::phase_ended(barrier, parity, false, site);
}
inline bool phase_ended_in_cluster(SharedAddress barrier, unsigned parity, Site site = Site::current()) {
    return emulate::phase_ended(barrier, parity, true, site);
}
inline void fence_global_for_copies(Site site = Site::current()) { emulate::fence_global_for_copies(site); }
template <int blocks>
void copy_to_blocks(SharedAddress destination, const void* source, unsigned bytes, SharedAddress barrier,
                    Site site = Site::current()) {
    emulate::copy_to_blocks(destination, source, bytes, barrier, blocks, site);
}

}  // namespace tilesmith
