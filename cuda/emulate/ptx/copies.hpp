// The twin of ptx/copies.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

template <int Bytes>
void cp_async(SharedAddress destination, const void* source, Site site = Site::current()) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    emulate::issue_copy(destination, source, Bytes, site);
}
template <int Bytes>
void cp_async_or_zeros(SharedAddress destination, const void* source, bool real, Site site = Site::current()) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    emulate::issue_copy(destination, real ? source : nullptr, Bytes, site);
}
using CachePolicy = unsigned long long;
inline CachePolicy evict_last() { return 1; }
inline CachePolicy evict_first() { return 0; }
inline void cp_async_or_zeros(SharedAddress destination, const void* source, bool real, CachePolicy policy, Site site = Site::current()) {
    emulate::issue_copy(destination, real ? source : nullptr, 16, site);
}
inline void cp_async_commit() { emulate::commit_copies(); }
template <int Pending>
void cp_async_wait() {
    static_assert(Pending >= 0, "a number of groups");
    emulate::wait_for_copies(Pending);
}

}  // namespace tilesmith
