// Asynchronous copies, global to shared memory.
#pragma once

#include "ptx/shared_memory.cuh"

namespace tilesmith {

/// Copy `Bytes` (4, 8 or 16) when the hardware finds the time; see cp_async_wait. Before sm_80 it is at once.
template <int Bytes>
TILESMITH_DEVICE void cp_async(SharedAddress destination, const void* source) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (architecture < 80) {
        unsigned words[4];
        if constexpr (Bytes == 16) {  // past the cache of the multiprocessor, as cp.async
            asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                         : "l"(source)
                         : "memory");
            store_shared_128(destination, uint4{words[0], words[1], words[2], words[3]});
        } else {
#pragma unroll
            for (int i = 0; i < Bytes / 4; ++i) {
                asm volatile("ld.global.u32 %0, [%1];" : "=r"(words[i]) : "l"(static_cast<const unsigned*>(source) + i) : "memory");
                store_shared_32(destination + 4 * i, words[i]);
            }
        }
    } else if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(destination), "l"(source) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(destination), "l"(source), "n"(Bytes)
                     : "memory");
}
/// The same, or zeros, which need no source.
template <int Bytes>
TILESMITH_DEVICE void cp_async_or_zeros(SharedAddress destination, const void* source, bool real) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    const int read = real ? Bytes : 0;
    if constexpr (architecture < 80) {
        if (real) return cp_async<Bytes>(destination, source);
#pragma unroll
        for (int word = 0; word < Bytes / 4; ++word) store_shared_32(destination + 4 * word, 0);
    } else if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(read) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination), "l"(source), "n"(Bytes), "r"(read)
                     : "memory");
}
/// How L2 treats what passes through it: whether it lets go of it last, or first.
using CachePolicy = unsigned long long;
TILESMITH_DEVICE CachePolicy evict_last() {
    CachePolicy policy = 0;
    if constexpr (architecture >= 80) asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
TILESMITH_DEVICE CachePolicy evict_first() {
    CachePolicy policy = 0;
    if constexpr (architecture >= 80) asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
/// 16 bytes, or zeros, which need no source, by a policy.
TILESMITH_DEVICE void cp_async_or_zeros(SharedAddress destination, const void* source, bool real, CachePolicy policy) {
    if constexpr (architecture < 80)
        cp_async_or_zeros<16>(destination, source, real);
    else
        asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(destination), "l"(source),
                     "r"(real ? 16 : 0), "l"(policy)
                     : "memory");
}
/// Close the calling thread's current group of copies.
TILESMITH_DEVICE void cp_async_commit() {
    if constexpr (architecture >= 80) asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Wait until at most `Pending` of the calling thread's newest groups are unfinished. Other threads see the
/// copies only after a barrier that follows.
template <int Pending>
TILESMITH_DEVICE void cp_async_wait() {
    if constexpr (architecture >= 80) asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace tilesmith
