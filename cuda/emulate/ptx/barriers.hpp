// The twin of ptx/barriers.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline void sync_block(Site site = Site::current()) { emulate::sync_whole_block(site); }
inline void sync_named(unsigned id, unsigned threads, Site site = Site::current()) {
    emulate::sync_named_barrier(id, threads, site);
}
inline void arrive_named(unsigned id, unsigned threads, Site site = Site::current()) {
    emulate::arrive_named_barrier(id, threads, site);
}
inline void sync_warp(Site site = Site::current()) { emulate::sync_whole_warp(site); }

}  // namespace tilesmith
