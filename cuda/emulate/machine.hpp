// The machine as the kernel sees it: threads in warps in blocks in clusters, and teams of blocks that run at the same
// time.
//
// Every block is in a cluster, if only one of its own. A team is one cluster, or the whole grid of a cooperative
// launch. Teams run one after another, so that nothing orders one before another; clocks and ranks count the threads of
// one team.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calls.hpp"
#include "clocks.hpp"
#include "fault.hpp"
#include "fiber.hpp"

namespace tilesmith::emulate {

constexpr unsigned warp_size = 32;
constexpr unsigned named_barriers = 16;  // PTX ISA, barrier: "sixteen barriers per CTA"
constexpr unsigned cluster_barrier = named_barriers;  // the number of the cluster's barrier, beside those of the block
constexpr unsigned no_thread = ~0u;
constexpr unsigned rank_shift = 24;  // a cluster address is a block's own with the rank, from 1 on, above it

class SharedMemory;
struct Mailbox;
struct Counter;
struct Thread;
struct Block;
struct Team;

/// One asynchronous copy that has not landed.
struct Copy {
    unsigned destination, bytes, group;
    const void* source;
    std::array<std::byte, 16> data;
    Site site;
};

/// A copy of many bytes to blocks of the cluster, from when it is asked for. clock: of its thread then. left: blocks in which it
/// has not landed.
struct BulkCopy {
    const Thread* thread;
    Clock clock;
    const void* source;
    unsigned destination, barrier, left;
    std::vector<std::byte> data;
    Site site;
};

/// A barrier of arrivals and bytes, and what those that arrived in a phase knew; of the phase that ended last, apart. landed: copies
/// of that phase and this that nobody has waited for.
struct TransferBarrier {
    unsigned arrivals = 0, missing = 0;
    long long bytes = 0;
    unsigned phase = 0;
    Clock begun = 0, fenced = 0;  // by the clock of the thread that began it
    unsigned beginner = 0;
    bool remote = false;  // whether other blocks have arrived in this phase,
    bool ended_remote = false;  // and in the one that ended last
    std::vector<Clock> published, published_messages, ended, ended_messages;
    std::vector<std::shared_ptr<BulkCopy>> landed;
    std::vector<Thread*> waiting;
};

/// One asynchronous product that nobody has waited for. begin: what it adds to; empty where that comes from the one before it.
struct PendingProduct {
    WarpgroupProduct product;
    unsigned group;
    std::vector<float> begin;
    Site site;
};

/// The lanes of a warp that have reached its current collective operation.
struct Warp {
    Block* block = nullptr;
    unsigned index = 0;
    const char* operation = nullptr;
    Site site;
    unsigned arrived = 0;  // one bit a lane
    std::array<const void*, warp_size> input{};
    std::array<void*, warp_size> output{};

    // Of messages (mailbox.hpp).
    unsigned rank = 0;         // in the team
    std::vector<Clock> heard;  // what its lanes have polled since they met
    const void* last_heard = nullptr;
    std::shared_ptr<const std::vector<Clock>> snapshot;  // what a message carries that is sent now
};

/// A word that somebody polls for, and where it lies: in an array, or in the shared memory of its own block.
struct Awaited {
    Mailbox* box = nullptr;
    std::uint64_t offset = 0;
    const std::string* array = nullptr;
};

struct Thread {
    enum class State { ready, waiting, finished };

    unsigned index = 0;  // in the block
    unsigned rank = 0;   // in the team
    Block* block = nullptr;
    Warp* warp = nullptr;
    Team* team = nullptr;
    Fiber fiber;
    State state = State::ready;
    const char* operation = nullptr;  // what a waiting thread waits in, and where
    Site site;
    unsigned barriers = 0;  // one bit for each barrier that this thread has arrived at and that is not complete
    unsigned groups = 0;    // groups of copies committed
    std::vector<Copy> copies;
    std::vector<PendingProduct> products;
    unsigned product_groups = 0;   // of products, committed
    bool products_fenced = false;  // since it last waited for products
    Clock shared_fenced = 0;       // when it last made its writes to shared memory known to products
    Awaited awaited;  // the first word that it found poisoned since it last waited
    Awaited polled;   // the word whose message it waits for
    Counter* counted = nullptr;  // the counter that it looked at since it last waited, and what it saw
    unsigned count = 0;
    TransferBarrier* phased = nullptr;  // the barrier of whose phase it has asked since it last waited
    unsigned phase = 0;
    std::vector<Clock> fenced_for_copies;  // what its warp knew when it last fenced global memory for copies

    unsigned lane() const { return index % warp_size; }
};

/// A barrier of a block or of a cluster between two completions.
struct Barrier {
    unsigned expected = 0;
    std::vector<Thread*> arrived, waiting;
    Published published;
    std::vector<Clock> published_messages;
    const char* operation = nullptr;
    Site site;  // of the first to arrive
};

/// Blocks that can read each other's shared memory; they follow one another in the team.
struct Cluster {
    Block* first = nullptr;
    unsigned size = 1;
    Barrier barrier;
};

/// A word on its way to a place, of a block's shared memory or (to: null) of global memory; or a copy.
struct Message {
    Block* to;
    Mailbox* box;
    std::byte* place;
    unsigned word;
    std::shared_ptr<BulkCopy> copy = nullptr;
};

/// Who sent a message, and where.
struct Sending {
    const Thread* thread;
    Site site;
};

/// The last use that one thread of a cluster made of a block's shared memory by its rank.
struct ClusterRead {
    Clock clock = 0;  // 0: none
    Site site;
};

struct Block {
    unsigned x = 0, y = 0, z = 0;
    unsigned first_rank = 0;
    Cluster* cluster = nullptr;
    unsigned cluster_rank = 0;
    unsigned left = 0;  // threads that have not finished
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::array<Barrier, named_barriers> barriers;
    std::unique_ptr<SharedMemory> shared;
    std::vector<Mailbox*> unfenced;  // words of global memory that its threads have poisoned, and no fence since
    std::vector<ClusterRead> cluster_reads;  // of this block's memory, by the reader's rank; empty until the first
    std::map<unsigned, TransferBarrier> transfer_barriers;  // by their addresses
    std::map<unsigned, Sending> unheard;     // messages to this block, by offset, of which nothing says that they have come
};

struct Team {
    unsigned number = 0;
    unsigned blocks_x = 1;  // of the launch
    Clocks clocks;
    std::vector<Block> blocks;
    std::vector<Cluster> clusters;
    MessageClocks message_clocks;  // of warps
    std::vector<Message> under_way;

    /// `cluster`: threads of a cluster, which nothing but messages orders after those of another.
    Team(unsigned threads, unsigned cluster)
        : clocks(threads, cluster), message_clocks(threads / warp_size) {}
    Thread& thread(unsigned rank) {
        const auto size = static_cast<unsigned>(blocks.front().threads.size());
        return blocks[rank / size].threads[rank % size];
    }
};

inline std::string describe(const Block& block) { return text("block (%u, %u, %u)", block.x, block.y, block.z); }

/// "cluster of blocks (0, 0, 0) to (3, 0, 0)"
inline std::string describe(const Cluster& cluster) {
    const Block &first = cluster.first[0], &last = cluster.first[cluster.size - 1];
    if (cluster.size == 1) return "cluster of " + describe(first);
    return text("cluster of blocks (%u, %u, %u) to (%u, %u, %u)", first.x, first.y, first.z, last.x, last.y, last.z);
}

/// "thread 37 (warp 1, lane 5)"
inline std::string describe(const Thread& thread) {
    return text("thread %u (warp %u, lane %u)", thread.index, thread.index / warp_size, thread.lane());
}

/// "thread 37 (warp 1, lane 5) of block (0, 0, 0)"
inline std::string describe_fully(const Thread& thread) {
    return describe(thread) + " of " + describe(*thread.block);
}

}  // namespace tilesmith::emulate
