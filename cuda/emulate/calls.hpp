// What the device functions of ptx.hpp ask of the emulator. A kernel is compiled against this small header alone; the
// emulator behind it (core.hpp) is compiled once, to a library that every kernel needs.
#pragma once

#include <source_location>

namespace tilesmith::emulate {

#pragma GCC visibility push(default)

/// Where in the device source a function of ptx.hpp was called.
using Site = std::source_location;

struct Place {
    unsigned thread, block_x, block_y, blocks_x, cluster_rank, cluster_blocks;
};
/// Of the running thread.
Place place();

/// A clock for all threads: it goes on by one with every access to memory, switch of threads, and look at it.
unsigned long long ticks();

/// Where a block's dynamic shared memory starts: aligned to 128 bytes as promised, and to no more.
inline constexpr unsigned shared_base = 128 * 9;

void read_shared(unsigned address, void* out, unsigned bytes, const Site& site);
void write_shared(unsigned address, const void* in, unsigned bytes, const Site& site);
/// Read the shared memory of block `rank` of the running thread's cluster.
void read_cluster(unsigned rank, unsigned address, void* out, unsigned bytes, const Site& site);

/// What a word holds that waits for a message.
inline constexpr unsigned poison = 0xffffffffu;
/// An address of the shared memory of block `rank` of the running thread's cluster, which send_word takes.
unsigned map_to_cluster(unsigned address, unsigned rank, const Site& site);
void send_word(unsigned cluster_address, unsigned word, const Site& site);
/// Read the block's own shared memory, words of which may wait for messages.
void poll_shared(unsigned address, void* out, unsigned bytes, const Site& site);
/// Let the others run until the first word has come that the thread found poisoned since it was here last, or the counter
/// that it looked at has changed.
void wait_for_message(const Site& site);
void poison_shared(unsigned address, unsigned bytes, const Site& site);

void read_global(const void* address, void* out, unsigned bytes, const Site& site);
void write_global(void* address, const void* in, unsigned bytes, const Site& site);

/// The same three for words of global memory.
void send_global_word(void* address, unsigned word, const Site& site);
void poll_global(const void* address, void* out, unsigned bytes, const Site& site);
void poison_global(void* address, unsigned bytes, const Site& site);
/// What the running thread has poisoned so far, all know of who hear of what it does next.
void fence(const Site& site);

/// Add 1 to a counter of global memory: who sees it knows what the running thread's warp had done when its lanes last met.
void signal_counter(void* address, const Site& site);
unsigned poll_counter(const void* address, const Site& site);
/// Read global memory that the kernel itself writes; cached: the block of the running thread alone.
void read_stored(const void* address, void* out, unsigned bytes, bool cached, const Site& site);

void issue_copy(unsigned destination, const void* source, unsigned bytes, const Site& site);
void commit_copies();
/// Land the copies of all groups but the `pending` newest.
void wait_for_copies(unsigned pending);

/// A barrier in the block's own shared memory that counts arrivals and bytes, phase by phase.
void begin_transfer_barrier(unsigned barrier, unsigned arrivals, const Site& site);
void fence_transfer_barriers(const Site& site);
/// barrier: an address of the block's own, or of the cluster's.
void arrive_at_transfer_barrier(unsigned barrier, unsigned bytes, const Site& site);
/// in_cluster: whether what other blocks did before they arrived counts too.
bool phase_ended(unsigned barrier, unsigned parity, bool in_cluster, const Site& site);
/// What the running thread knows to have been stored in global memory is there for bulk copies.
void fence_global_for_copies(const Site& site);
/// To the same place of the first `blocks` blocks of the cluster; 1: of the running thread's own.
void copy_to_blocks(unsigned destination, const void* source, unsigned bytes, unsigned barrier, unsigned blocks, const Site& site);

void sync_whole_block(const Site& site);
void sync_whole_cluster(const Site& site);
void sync_whole_warp(const Site& site);
bool vote_any(bool value, const Site& site);
unsigned vote_lanes(bool value, const Site& site);
unsigned exchange_lanes(unsigned value, unsigned lanes, const Site& site);
void sync_named_barrier(unsigned id, unsigned threads, const Site& site);
void arrive_named_barrier(unsigned id, unsigned threads, const Site& site);

struct MatrixOperands {
    unsigned a[4];
    unsigned b[2];
    float c[4];
};
struct Accumulators {
    float d[4];
};
struct Fragments {
    unsigned words[4];
};
/// d = a x b + c, 16 x 8 x 16; `decode` makes a float of a 16-bit word.
Accumulators multiply_16x8x16(const MatrixOperands& operands, float (*decode)(unsigned), const Site& site);
/// d = a x b + c, 16 x 8 x 8, of words of which the upper 19 bits count.
Accumulators multiply_16x8x8_tf32(const MatrixOperands& operands, const Site& site);
struct DoubleOperands {
    double a, b, c[2];
};
struct DoubleAccumulators {
    double d[2];
};
/// d = a x b + c, 8 x 8 x 4.
DoubleAccumulators multiply_8x8x4_f64(const DoubleOperands& operands, const Site& site);
/// d = a x b, or d + a x b, of a warpgroup: 64 x columns x 16. d: the lane's columns / 2 accumulators. `decode` makes a float of a
/// 16-bit word.
struct WarpgroupProduct {
    float* d;
    unsigned columns;
    bool a_in_registers = false;
    unsigned a[4] = {};
    unsigned long long a_descriptor = 0, b_descriptor;
    bool adds;
    float (*decode)(unsigned);
};
void issue_warpgroup_product(const WarpgroupProduct& product, const Site& site);
void fence_products(const Site& site);
void commit_products(const Site& site);
/// Finish the products of all groups but the `pending` newest.
void wait_for_products(unsigned pending, const Site& site);
/// What the running thread has written to shared memory is there for warpgroup products.
void fence_shared(const Site& site);
/// ldmatrix.trans of 1, 2 or 4 matrices of 8 x 8.
Fragments load_matrices_transposed(unsigned matrices, unsigned row_address, const Site& site);
/// ldmatrix of 2 or 4 matrices as they lie.
Fragments load_matrices(unsigned matrices, unsigned row_address, const Site& site);
void store_matrices_transposed(unsigned matrices, unsigned row_address, Fragments fragments, const Site& site);
/// movmatrix.trans of one matrix of 8 x 8.
unsigned transpose_matrix(unsigned pair, const Site& site);

#pragma GCC visibility pop

/// One argument on its way into the kernel: becomes whatever pointer or integer the parameter is.
struct Value {
    struct Pointer {
        void* address;
        template <class Type>
        operator Type*() const {
            return static_cast<Type*>(address);
        }
    };
    void* address = nullptr;
    int number = 0;

    Pointer pointer() const { return {address}; }
    int integer() const { return number; }
};

}  // namespace tilesmith::emulate
