// Every PTX instruction that the schedules use, one small function each.
//
// Device code reaches memory and the hardware only through this file, so that the emulator can run the
// same kernels on a CPU: with TILESMITH_EMULATE defined, each function is taken from emulate/ptx.hpp, which
// gives it the same meaning in plain C++.
//
// Addresses: a SharedAddress is a byte offset in the shared state space of one block; global memory is
// reached through ordinary pointers. Lane numbers and fragment layouts are those of the PTX ISA, chapter
// "Warp-level matrix instructions": g = lane / 4, j = lane % 4.
#pragma once

#ifdef TILESMITH_EMULATE
#include "emulate/ptx.hpp"
#else

#define TILESMITH_DEVICE __device__ __forceinline__

namespace tilesmith {

using SharedAddress = unsigned;

/// What the kernel is compiled for, ten times the compute capability: 75, 80, 90, ... Where an instruction is newer, the function
/// that stands for it here makes do with older ones, or the table of what there is says that it cannot
/// (profiles/architectures.yaml).
inline constexpr int architecture = __CUDA_ARCH__ / 10;

// The types a kernel may keep h, R and Wx in. They are tags: values of the two 16-bit types travel as raw 16-bit words.
// tf32 is float in memory: products take the nearest TF32 numbers of what lies there.
struct bf16 {};
struct fp16 {};
struct fp32 {};
struct tf32 {};
struct fp64 {};

// ---- threads, warps, blocks ----

TILESMITH_DEVICE unsigned thread_index() { return threadIdx.x; }
TILESMITH_DEVICE unsigned block_x() { return blockIdx.x; }
TILESMITH_DEVICE unsigned block_y() { return blockIdx.y; }
/// How many blocks there are along x.
TILESMITH_DEVICE unsigned blocks_x() { return gridDim.x; }

/// The same number, of which the compiler knows nothing: what follows from it is computed where it stands, not kept in
/// registers through a loop in which it does not change.
TILESMITH_DEVICE int opaque(int value) {
    asm volatile("" : "+r"(value));
    return value;
}

/// The condition, of a branch that is seldom taken.
TILESMITH_DEVICE bool seldom(bool condition) { return __builtin_expect(condition, false); }

/// Clocks of the multiprocessor, from some moment on; memory is not touched earlier or later than the source says.
TILESMITH_DEVICE unsigned long long read_clock() {
    unsigned long long clocks;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clocks)::"memory");
    return clocks;
}

/// Nanoseconds of a clock that all multiprocessors share.
TILESMITH_DEVICE unsigned long long read_nanoseconds() {
    unsigned long long time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    return time;
}

// ---- barriers ----

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

/// Whether `value` holds in any lane of the warp; all 32 ask.
TILESMITH_DEVICE bool any_lane(bool value) { return __any_sync(0xffffffffu, value) != 0; }
/// The lanes, a bit each, whose value is true.
TILESMITH_DEVICE unsigned ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

/// The place of the lowest bit that is set; one is.
TILESMITH_DEVICE int lowest_bit(unsigned bits) { return __ffs(static_cast<int>(bits)) - 1; }

/// The value of the lane whose number differs in the bits of `lanes`; all 32 exchange.
TILESMITH_DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
/// The value of any lane.
TILESMITH_DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
TILESMITH_DEVICE double shuffle(double value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
TILESMITH_DEVICE double shuffle_xor(double value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }

// ---- shared memory ----

/// Start of the block's dynamic shared memory.
TILESMITH_DEVICE SharedAddress shared_memory() {
    extern __shared__ __align__(128) unsigned char tilesmith_shared_memory[];
    return static_cast<SharedAddress>(__cvta_generic_to_shared(tilesmith_shared_memory));
}

TILESMITH_DEVICE unsigned load_shared_8(SharedAddress address) {
    unsigned value;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE unsigned short load_shared_16(SharedAddress address) {
    unsigned short value;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE unsigned load_shared_32(SharedAddress address) {
    unsigned value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint2 load_shared_64(SharedAddress address) {
    uint2 value;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 load_shared_128(SharedAddress address) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}
TILESMITH_DEVICE float4 load_shared_float4(SharedAddress address) {
    float4 value;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}
TILESMITH_DEVICE double load_shared_double(SharedAddress address) {
    double value;
    asm volatile("ld.shared.f64 %0, [%1];" : "=d"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE void store_shared_16(SharedAddress address, unsigned short value) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_32(SharedAddress address, unsigned value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_64(SharedAddress address, uint2 value) {
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(value.x), "r"(value.y) : "memory");
}
TILESMITH_DEVICE void store_shared_double(SharedAddress address, double value) {
    asm volatile("st.shared.f64 [%0], %1;" ::"r"(address), "d"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_128(SharedAddress address, uint4 value) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x), "r"(value.y),
                 "r"(value.z), "r"(value.w)
                 : "memory");
}
TILESMITH_DEVICE void store_shared_float4(SharedAddress address, float4 value) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(value.x), "f"(value.y),
                 "f"(value.z), "f"(value.w)
                 : "memory");
}

// ---- clusters of blocks (sm_90 and newer) ----

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

// ---- messages: words that say by themselves that they are there (sm_90 and newer) ----
//
// The receiver fills a place in its shared memory with poison; one thread of the cluster stores a word there that is no
// poison; who waits for it polls until it is. Words of 32 bits arrive whole, and in any order. Nothing else is ordered
// by them: other data needs a barrier. A block must outlive the stores to its memory (sync_cluster).

/// Shared memory of any block of the cluster; offsets may be added.
using ClusterAddress = unsigned;

/// What no word that is sent may be: two NaN of a pattern that no conversion makes.
constexpr unsigned poison = 0xffffffffu;

/// The place in block `rank` of the cluster that has this address there.
TILESMITH_DEVICE ClusterAddress cluster_address(SharedAddress address, unsigned rank) {
    ClusterAddress remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

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

// ---- global memory ----

/// Read-only loads; the memory must not change while the kernel runs.
TILESMITH_DEVICE unsigned load_global_8(const void* address) {
    unsigned value;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE unsigned short load_global_16(const void* address) {
    unsigned short value;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE unsigned load_global_32(const void* address) {
    unsigned value;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE uint2 load_global_64(const void* address) {
    uint2 value;
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(address));
    return value;
}
TILESMITH_DEVICE uint4 load_global_128(const void* address) {
    uint4 value;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address));
    return value;
}
TILESMITH_DEVICE float load_global_float(const void* address) {
    float value;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE double load_global_double(const void* address) {
    double value;
    asm volatile("ld.global.nc.f64 %0, [%1];" : "=d"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE void store_global_16(void* address, unsigned short value) {
    asm volatile("st.global.u16 [%0], %1;" ::"l"(address), "h"(value) : "memory");
}
TILESMITH_DEVICE void store_global_32(void* address, unsigned value) {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
TILESMITH_DEVICE void store_global_float(void* address, float value) {
    asm volatile("st.global.f32 [%0], %1;" ::"l"(address), "f"(value) : "memory");
}
TILESMITH_DEVICE void store_global_double(void* address, double value) {
    asm volatile("st.global.f64 [%0], %1;" ::"l"(address), "d"(value) : "memory");
}
TILESMITH_DEVICE void store_global_64(void* address, uint2 value) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(value.x), "r"(value.y) : "memory");
}
TILESMITH_DEVICE void store_global_128(void* address, uint4 value) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y),
                 "r"(value.z), "r"(value.w)
                 : "memory");
}

// ---- messages through global memory (sm_70 and newer) ----
//
// The same words in a place that all blocks of the launch reach, through L2. Neither order nor arrival is any different. A
// load that may be cached, or that the compiler may leave out, is no poll.

/// Store a word for who polls for it, on any multiprocessor.
TILESMITH_DEVICE void send_global_32(void* to, unsigned word) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}

/// Load 16 bytes, words of which may still be poison.
TILESMITH_DEVICE uint4 poll_global_128(const void* address) {
    uint4 value;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address)
                 : "memory");
    return value;
}

/// Poison a word again: it has been read by all who were to.
TILESMITH_DEVICE void poison_global_32(void* address) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(poison) : "memory");
}

/// What the calling thread has stored so far, all see before what it stores from now on.
TILESMITH_DEVICE void fence_global() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// ---- counters in global memory: who is done with what (sm_70 and newer) ----
//
// All blocks of a launch reach them. Unlike a message, a signal orders everything: what the threads that the signalling one
// has met have stored before, who has seen the signal, or has met one that has, may load.

/// Add 1 to a counter.
TILESMITH_DEVICE void signal_global(unsigned* counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

/// What a counter has come to; see poll_again.
TILESMITH_DEVICE unsigned poll_signals(const unsigned* counter) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

/// Load what the kernel itself has stored: the calling thread, or one that it has met since.
TILESMITH_DEVICE float load_stored_float(const void* address) {
    float value;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(value) : "l"(address) : "memory");
    return value;
}

TILESMITH_DEVICE double load_stored_double(const void* address) {
    double value;
    asm volatile("ld.global.f64 %0, [%1];" : "=d"(value) : "l"(address) : "memory");
    return value;
}

// ---- asynchronous copies, global to shared ----

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

// ---- warp-level matrices ----

/// Load two 8 x 8 matrices of 16-bit words, transposed: lane l < 16 gives the address of row l % 8 of matrix
/// l / 8; lane (g, j) receives words [2j][g] and [2j+1][g] of each matrix.
TILESMITH_DEVICE void ldmatrix_x2_trans(unsigned (&out)[2], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(row)
                 : "memory");
}
/// The same for one matrix: lanes 0 to 7 give the row addresses.
TILESMITH_DEVICE void ldmatrix_x1_trans(unsigned& out, SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(out) : "r"(row) : "memory");
}
/// The same for four matrices: every lane gives one row address.
TILESMITH_DEVICE void ldmatrix_x4_trans(unsigned (&out)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

/// Load two or four 8 x 8 matrices of 16-bit words as they lie: lane (g, j) receives words [g][2j] and [g][2j+1] of each.
TILESMITH_DEVICE void ldmatrix_x2(unsigned (&out)[2], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "r"(row) : "memory");
}
TILESMITH_DEVICE void ldmatrix_x4(unsigned (&out)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

/// The inverse of ldmatrix_x4_trans: lane (g, j) gives words [2j][g] and [2j+1][g] of each of four matrices, and every lane
/// the address of one row. Needs sm_90.
TILESMITH_DEVICE void stmatrix_x4_trans(SharedAddress row, const unsigned (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}
/// The same for two matrices: lanes 0 to 15 give the row addresses.
TILESMITH_DEVICE void stmatrix_x2_trans(SharedAddress row, const unsigned (&words)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(words[0]), "r"(words[1])
                 : "memory");
}
/// The same for one matrix: lanes 0 to 7 give the row addresses.
TILESMITH_DEVICE void stmatrix_x1_trans(SharedAddress row, unsigned words) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row), "r"(words) : "memory");
}

/// Transpose an 8 x 8 matrix of 16-bit words held one pair a lane: in, lane (g, j) holds [g][2j], [g][2j+1];
/// out, it holds [2j][g], [2j+1][g].
TILESMITH_DEVICE unsigned movmatrix_trans(unsigned pair) {
    unsigned out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
    return out;
}

/// d = a x b + c for a 16 x 16 tile a (row-major), a 16 x 8 tile b (column-major) and float accumulators.
/// Lane (g, j) holds of a: words k = 2j, 2j+1 of rows g and g+8, then k = 2j+8, 2j+9 of the same rows; of b:
/// k = 2j, 2j+1 then 2j+8, 2j+9 of column g; of c and d: columns 2j, 2j+1 of row g, then of row g+8.
template <class Type>
TILESMITH_DEVICE void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                   const float (&c)[4]);

/// The same for half as many k, 0 to 7: of a words k = 2j, 2j+1 of rows g and g+8, of b those of column g.
template <class Type>
TILESMITH_DEVICE void mma_m16n8k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]);

template <>
TILESMITH_DEVICE void mma_m16n8k8<bf16>(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
template <>
TILESMITH_DEVICE void mma_m16n8k8<fp16>(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

template <>
TILESMITH_DEVICE void mma_m16n8k16<bf16>(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                         const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
template <>
TILESMITH_DEVICE void mma_m16n8k16<fp16>(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                         const float (&c)[4]) {
    if constexpr (architecture < 80) {
        const unsigned first[2] = {a[0], a[1]}, second[2] = {a[2], a[3]};
        float half[4];
        mma_m16n8k8<fp16>(half, first, b0, c);
        mma_m16n8k8<fp16>(d, second, b1, half);
        return;
    }
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/// d = a x b + c for a 16 x 8 tile a, an 8 x 8 tile b and float accumulators, of factors in TF32: of a word's bits the
/// upper 19 count, 8 of the exponent and 10 of the significand. Lane (g, j) holds of a: k = j of rows g and g+8, then
/// k = j+4 of the same rows; of b: k = j, j+4 of column g; of c and d what mma_m16n8k16 says. Sums are cut, not rounded.
TILESMITH_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/// d = a x b + d for an 8 x 4 tile a, a 4 x 8 tile b, all in double. Lane (g, j) holds of a: k = j of row g; of b: k = j of
/// column g; of d: columns 2j, 2j+1 of row g. Sums are rounded to the nearest.
TILESMITH_DEVICE void mma_m8n8k4_f64(double& d0, double& d1, double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+d"(d0), "+d"(d1) : "d"(a), "d"(b));
}

// ---- conversions: round to nearest even ----

/// Two floats as one word of two 16-bit values, `low` in bits 0 to 15.
template <class Type>
TILESMITH_DEVICE unsigned pack(float low, float high);
template <>
TILESMITH_DEVICE unsigned pack<bf16>(float low, float high) {
    unsigned out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}
template <>
TILESMITH_DEVICE unsigned pack<fp16>(float low, float high) {
    unsigned out;
    if constexpr (architecture < 80)
        asm("{.reg .b16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high};}"
            : "=r"(out)
            : "f"(low), "f"(high));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

/// The nearest number of TF32, of two the larger in magnitude, as the bits of a float.
TILESMITH_DEVICE unsigned round_tf32(unsigned word) {
    if constexpr (architecture < 80) return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & 0xffffe000u;
    unsigned out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(word)));
    return out;
}

template <class Type>
TILESMITH_DEVICE unsigned short to_16(float value) {
    return static_cast<unsigned short>(pack<Type>(value, 0.0f));
}

/// The low and the high half of such a word as floats (exact).
template <class Type>
TILESMITH_DEVICE float unpack_low(unsigned pair);
template <class Type>
TILESMITH_DEVICE float unpack_high(unsigned pair);
template <>
TILESMITH_DEVICE float unpack_low<bf16>(unsigned pair) { return __uint_as_float(pair << 16); }
template <>
TILESMITH_DEVICE float unpack_high<bf16>(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
template <>
TILESMITH_DEVICE float unpack_low<fp16>(unsigned pair) {
    float out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(out) : "r"(pair));
    return out;
}
template <>
TILESMITH_DEVICE float unpack_high<fp16>(unsigned pair) {
    float out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(out) : "r"(pair));
    return out;
}

// ---- special functions of the multi-function unit ----

/// tanh, relative error 2^-11 (PTX ISA).
TILESMITH_DEVICE float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// 2^x, at most 2 units in the last place.
TILESMITH_DEVICE float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// log2(x), absolute error 2^-22 near 1.
TILESMITH_DEVICE float lg2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// 1 / x, at most 1 unit in the last place.
TILESMITH_DEVICE float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
TILESMITH_DEVICE float sqrt_approx(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- the same functions as CUDA's library has them (errors: CUDA C++ Programming Guide, "Mathematical Functions") ----

/// tanh and e^x, at most 2 units in the last place.
TILESMITH_DEVICE float tanh_library(float x) { return tanhf(x); }
TILESMITH_DEVICE float exp_library(float x) { return expf(x); }
/// log(x) and log(1 + x), at most 1 unit in the last place.
TILESMITH_DEVICE float log_library(float x) { return logf(x); }
TILESMITH_DEVICE float log1p_library(float x) { return log1pf(x); }
/// x^y, at most 4 units in the last place.
TILESMITH_DEVICE float pow_library(float x, float y) { return powf(x, y); }
/// The nearest float.
TILESMITH_DEVICE float sqrt_rn(float x) { return __fsqrt_rn(x); }
TILESMITH_DEVICE float rcp_rn(float x) { return __frcp_rn(x); }

// ---- and in double: each errs by at most 2 units in the last place ----

TILESMITH_DEVICE double tanh_library(double x) { return ::tanh(x); }
TILESMITH_DEVICE double exp_library(double x) { return ::exp(x); }
TILESMITH_DEVICE double log_library(double x) { return ::log(x); }
TILESMITH_DEVICE double log1p_library(double x) { return ::log1p(x); }
TILESMITH_DEVICE double pow_library(double x, double y) { return ::pow(x, y); }
TILESMITH_DEVICE double sqrt_rn(double x) { return __dsqrt_rn(x); }
TILESMITH_DEVICE double rcp_rn(double x) { return __drcp_rn(x); }

// ---- arithmetic ----

TILESMITH_DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
TILESMITH_DEVICE float max_rn(float a, float b) { return fmaxf(a, b); }
TILESMITH_DEVICE float min_rn(float a, float b) { return fminf(a, b); }
TILESMITH_DEVICE float abs_rn(float a) { return fabsf(a); }
TILESMITH_DEVICE double abs_rn(double a) { return fabs(a); }

}  // namespace tilesmith

#endif
