// The twin of ptx/clusters.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline unsigned cluster_rank() { return emulate::place().cluster_rank; }
inline unsigned cluster_blocks() { return emulate::place().cluster_blocks; }
inline void sync_cluster(Site site = Site::current()) { emulate::sync_whole_cluster(site); }
inline float4 load_cluster_float4(SharedAddress address, unsigned rank, Site site = Site::current()) {
    float4 value;
    emulate::read_cluster(rank, address, &value, sizeof value, site);
    return value;
}

using ClusterAddress = unsigned;
inline ClusterAddress cluster_address(SharedAddress address, unsigned rank, Site site = Site::current()) {
    return emulate::map_to_cluster(address, rank, site);
}

}  // namespace tilesmith
