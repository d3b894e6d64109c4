// Messages: words that say by themselves that they are there, through shared memory (sm_90 and newer) or global.
//
// The receiver fills a place in its shared memory with poison; one thread of the cluster stores a word there that is no
// poison; who waits for it polls until it is. Words of 32 bits arrive whole, and in any order. Nothing else is ordered
// by them: other data needs a barrier. A block must outlive the stores to its memory (sync_cluster).
#pragma once

#include "ptx/clusters.cuh"

namespace tilesmith {

/// What no word that is sent may be: two NaN of a pattern that no conversion makes.
constexpr unsigned poison = 0xffffffffu;

/// Store a word into a block's shared memory, one's own included; it lands when the hardware finds the time.
TILESMITH_DEVICE void send_32(ClusterAddress to, unsigned word) {
    asm volatile("st.relaxed.cluster.shared::cluster.u32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}

/// The same for two words, 8 bytes in a row, and for four: each arrives whole, and not with the others.
TILESMITH_DEVICE void send_64(ClusterAddress to, uint2 words) {
    asm volatile("st.relaxed.cluster.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(to), "r"(words.x), "r"(words.y) : "memory");
}
TILESMITH_DEVICE void send_128(ClusterAddress to, uint4 words) {
    asm volatile("st.relaxed.cluster.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words.x), "r"(words.y),
                 "r"(words.z), "r"(words.w)
                 : "memory");
}

/// Load 4, 8 or 16 bytes of the block's own shared memory, words of which may still be poison.
TILESMITH_DEVICE unsigned poll_32(SharedAddress address) {
    unsigned value;
    asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint2 poll_64(SharedAddress address) {
    uint2 value;
    asm volatile("ld.volatile.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 poll_128(SharedAddress address) {
    uint4 value;
    asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}

/// Wait for some clocks, and ask for nothing meanwhile.
TILESMITH_DEVICE void pause(unsigned clocks) {
    unsigned begin, now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(begin)::"memory");
    do asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    while (now - begin < clocks);
}

/// To be called before polling again; `rounds` starts at 0. After some seconds without success the kernel is stopped
/// with an error rather than left hanging.
TILESMITH_DEVICE void poll_again(unsigned& rounds) {
    if (++rounds >= 1u << 26) asm volatile("trap;");
}

/// Poison 16 bytes of the block's own shared memory: the words there have been read by all who were to.
TILESMITH_DEVICE void poison_128(SharedAddress address) {
    asm volatile("st.volatile.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(poison) : "memory");
}

// ---- through global memory (sm_70 and newer) ----
//
// The same words in a place that all blocks of the launch reach, through L2. Neither order nor arrival is any different. A
// load that may be cached, or that the compiler may leave out, is no poll.

/// Store a word for who polls for it, on any multiprocessor.
TILESMITH_DEVICE void send_global_32(void* to, unsigned word) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}

/// The same for two words, 8 bytes in a row: each arrives whole, and not with the other.
TILESMITH_DEVICE void send_global_64(void* to, uint2 words) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(words.x), "r"(words.y) : "memory");
}

/// Load 4, 8 or 16 bytes, words of which may still be poison.
TILESMITH_DEVICE unsigned poll_global_32(const void* address) {
    unsigned value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint2 poll_global_64(const void* address) {
    uint2 value;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 poll_global_128(const void* address) {
    uint4 value;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address)
                 : "memory");
    return value;
}

/// Poison a word again, or two in a row: it has been read by all who were to.
TILESMITH_DEVICE void poison_global_32(void* address) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(poison) : "memory");
}
TILESMITH_DEVICE void poison_global_64(void* address) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %1};" ::"l"(address), "r"(poison) : "memory");
}

/// What the calling thread has stored so far, all see before what it stores from now on.
TILESMITH_DEVICE void fence_global() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

}  // namespace tilesmith
