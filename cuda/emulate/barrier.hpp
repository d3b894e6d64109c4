// Barriers of a block, which are __syncthreads and the named ones with their counts, and the barrier of a cluster.
//
// Arriving releases what a thread has done, being let go acquires what all arrivals released.
#pragma once

#include "message.hpp"

namespace tilesmith::emulate {

[[noreturn]] inline void barrier_fault(const std::string& what, const char* operation, const Site& site) {
    throw Fault{what + "\n  " + describe_fully(*running) + " calls " + operation + " at " + describe(site)};
}

inline Barrier& barrier_of(const Thread& thread, unsigned id) {
    return id == cluster_barrier ? thread.block->cluster->barrier : thread.block->barriers[id];
}

/// A thread is let go: it learns what all that have arrived knew.
inline void learn(Thread& thread, const Barrier& barrier) {
    thread.team->clocks.rejoin(thread.rank, barrier.published);
    thread.team->message_clocks.acquire(thread.warp->rank, barrier.published_messages);
    thread.warp->snapshot = nullptr;
}

/// Count the running thread in; let the waiting threads go when all are there. Says whether that is so.
inline bool arrive(unsigned id, unsigned expected, const char* operation, const Site& site) {
    Thread& thread = *running;
    Barrier& barrier = barrier_of(thread, id);
    if (barrier.arrived.empty()) {
        barrier.expected = expected;
        barrier.operation = operation;
        barrier.site = site;
        barrier.published = {};
        barrier.published_messages.assign(thread.team->message_clocks.threads(), 0);
    } else if (barrier.expected != expected) {
        barrier_fault(text("barrier %u is met with two thread counts: %u, and %u by ", id, expected, barrier.expected) +
                          describe(*barrier.arrived.front()) + " in " + barrier.operation + " at " +
                          describe(barrier.site),
                      operation, site);
    }
    if (thread.barriers >> id & 1)
        barrier_fault(text("a thread arrives twice at barrier %u, where %zu of %u threads have arrived", id,
                           barrier.arrived.size(), expected),
                      operation, site);
    barrier.arrived.push_back(&thread);
    thread.barriers |= 1u << id;
    thread.team->clocks.release(thread.rank, barrier.published);
    share_heard(*thread.warp);
    thread.team->message_clocks.release(thread.warp->rank, barrier.published_messages);
    if (barrier.arrived.size() < expected) return false;
    for (Thread* other : barrier.arrived) other->barriers &= ~(1u << id);
    for (Thread* other : barrier.waiting) {
        learn(*other, barrier);
        scheduler->wake(*other);
    }
    barrier.waiting.clear();
    barrier.arrived.clear();
    return true;
}

inline void arrive_and_wait(unsigned id, unsigned expected, const char* operation, const Site& site) {
    Thread& thread = *running;
    Barrier& barrier = barrier_of(thread, id);
    if (arrive(id, expected, operation, site)) {
        learn(thread, barrier);
    } else {
        barrier.waiting.push_back(&thread);
        scheduler->wait(operation, site);
    }
}

inline void check_named(unsigned id, unsigned threads, const char* operation, const Site& site) {
    if (id == 0 || id >= named_barriers)
        barrier_fault(text("a named barrier is one of 1 to %u, not %u", named_barriers - 1, id), operation, site);
    const auto all = static_cast<unsigned>(running->block->threads.size());
    if (threads == 0 || threads % warp_size != 0 || threads > all)
        barrier_fault(text("barrier %u cannot be met by %u threads: whole warps of a block of %u", id, threads, all),
                      operation, site);
}

/// The lanes of a warp must come to an aligned barrier at the same place in the source.
inline void check_convergence(unsigned id, const char* operation, const Site& site) {
    const Thread* lanes = &running->block->threads[running->warp->index * warp_size];
    for (unsigned lane = 0; lane < warp_size; ++lane)
        if (lanes[lane].barriers >> id & 1 && !same(lanes[lane].site, site))
            barrier_fault("a warp has diverged: " + describe(lanes[lane]) + " waits in " + operation + " at " +
                              describe(lanes[lane].site),
                          operation, site);
}

/// __syncthreads
void sync_whole_block(const Site& site) {
    check_convergence(0, "sync_block", site);
    arrive_and_wait(0, static_cast<unsigned>(running->block->threads.size()), "sync_block", site);
}

/// barrier.cluster.arrive and .wait
void sync_whole_cluster(const Site& site) {
    const Block& block = *running->block;
    check_convergence(cluster_barrier, "sync_cluster", site);
    const unsigned all = block.cluster->size * static_cast<unsigned>(block.threads.size());
    if (block.cluster->barrier.arrived.size() + 1 == all) deliver_all(*block.cluster);
    arrive_and_wait(cluster_barrier, all, "sync_cluster", site);
}

void sync_named_barrier(unsigned id, unsigned threads, const Site& site) {
    check_named(id, threads, "sync_named", site);
    arrive_and_wait(id, threads, "sync_named", site);
}

void arrive_named_barrier(unsigned id, unsigned threads, const Site& site) {
    check_named(id, threads, "arrive_named", site);
    arrive(id, threads, "arrive_named", site);
}

}  // namespace tilesmith::emulate
