// The twin of ptx/messages.cuh.
#pragma once

#include "emulate/ptx/clusters.hpp"

namespace tilesmith {

constexpr unsigned poison = emulate::poison;

inline void send_32(ClusterAddress to, unsigned word, Site site = Site::current()) {
    emulate::send_word(to, word, site);
}
inline void send_64(ClusterAddress to, uint2 words, Site site = Site::current()) {
    emulate::send_word(to, words.x, site);
    emulate::send_word(to + 4, words.y, site);
}
inline void send_128(ClusterAddress to, uint4 words, Site site = Site::current()) {
    send_64(to, uint2{words.x, words.y}, site);
    send_64(to + 8, uint2{words.z, words.w}, site);
}
inline unsigned poll_32(SharedAddress address, Site site = Site::current()) {
    unsigned value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline uint2 poll_64(SharedAddress address, Site site = Site::current()) {
    uint2 value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline uint4 poll_128(SharedAddress address, Site site = Site::current()) {
    uint4 value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline void pause(unsigned clocks) { static_cast<void>(clocks); }
inline void poll_again(unsigned& rounds, Site site = Site::current()) {
    ++rounds;
    emulate::wait_for_message(site);
}
inline void poison_128(SharedAddress address, Site site = Site::current()) {
    emulate::poison_shared(address, 16, site);
}

// ---- through global memory ----

inline void send_global_32(void* to, unsigned word, Site site = Site::current()) {
    emulate::send_global_word(to, word, site);
}
inline void send_global_64(void* to, uint2 words, Site site = Site::current()) {
    emulate::send_global_word(to, words.x, site);
    emulate::send_global_word(static_cast<unsigned*>(to) + 1, words.y, site);
}
inline unsigned poll_global_32(const void* address, Site site = Site::current()) {
    unsigned value;
    emulate::poll_global(address, &value, sizeof value, site);
    return value;
}
inline uint2 poll_global_64(const void* address, Site site = Site::current()) {
    uint2 value;
    emulate::poll_global(address, &value, sizeof value, site);
    return value;
}
inline uint4 poll_global_128(const void* address, Site site = Site::current()) {
    uint4 value;
    emulate::poll_global(address, &value, sizeof value, site);
    return value;
}
inline void poison_global_32(void* address, Site site = Site::current()) {
    emulate::poison_global(address, 4, site);
}
inline void poison_global_64(void* address, Site site = Site::current()) { emulate::poison_global(address, 8, site); }
inline void fence_global(Site site = Site::current()) { emulate::fence(site); }

}  // namespace tilesmith
