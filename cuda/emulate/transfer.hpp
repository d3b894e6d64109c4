// Bulk copies to blocks of a cluster, and the barriers that count them (ptx/transfers.cuh). PTX ISA, "Asynchronous copy" and
// "mbarrier".
//
// A copy reads its source when it is asked for, and lands at a time that the seed draws, in each block by itself; from one to the
// other nobody may touch the destination, nor store to the source. It counts as its thread's own write of the time it was asked
// for, for who has waited for the phase that it is counted in.
#pragma once

#include <algorithm>

#include "global.hpp"
#include "scheduler.hpp"
#include "shared.hpp"

namespace tilesmith::emulate {

[[noreturn]] inline void transfer_fault(const std::string& what, const char* verb, const Site& site) {
    throw Fault{what + "\n  " + describe(Access{*running, verb, site})};
}

/// The barrier of a block; who uses it must know that it has begun.
inline TransferBarrier& transfer_barrier(Block& block, unsigned address, const char* verb, const Site& site) {
    const auto found = block.transfer_barriers.find(address);
    if (found == block.transfer_barriers.end())
        transfer_fault(text("no barrier has been begun at offset %u of the shared memory of ", address - shared_base) +
                           describe(block) + "; if it is to be, the two lack a meeting", verb, site);
    TransferBarrier& barrier = found->second;
    block.shared->check_known(*running, address, 8, verb, site);
    if (barrier.fenced < barrier.begun)
        transfer_fault("a barrier is used whose beginning was not followed by fence_transfer_barriers()", verb, site);
    return barrier;
}

/// Its phase ends when nothing is missing.
inline void check_phase(TransferBarrier& barrier) {
    if (barrier.missing != 0 || barrier.bytes != 0) return;
    ++barrier.phase;
    barrier.missing = barrier.arrivals;
    barrier.ended = barrier.published;
    barrier.ended_messages = barrier.published_messages;
    barrier.ended_remote = std::exchange(barrier.remote, false);
    for (Thread* waiting : std::exchange(barrier.waiting, {})) scheduler->wake(*waiting);
}

void begin_transfer_barrier(unsigned address, unsigned arrivals, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    if (arrivals == 0) transfer_fault("a barrier of no arrivals", "begins a barrier", site);
    constexpr unsigned char zeros[8] = {};
    thread.block->shared->write(thread, address, zeros, sizeof zeros, site);
    TransferBarrier& barrier = thread.block->transfer_barriers[address];
    if (barrier.arrivals != 0) transfer_fault("a barrier is begun twice", "begins a barrier", site);
    barrier.arrivals = barrier.missing = arrivals;
    barrier.begun = thread.team->clocks.now(thread.rank);
    barrier.beginner = thread.rank;
}

void fence_transfer_barriers(const Site& site) {
    scheduler->before_access(site);
    for (auto& [address, barrier] : running->block->transfer_barriers)
        if (barrier.beginner == running->rank) barrier.fenced = running->team->clocks.now(running->rank);
    running->shared_fenced = running->team->clocks.now(running->rank);
}

/// What a thread has done is there for who waits; of its warp what was done before its lanes last met.
inline void publish(TransferBarrier& barrier, const Thread& thread) {
    Team& team = *thread.team;
    team.clocks.release(thread.rank, barrier.published);
    const MessageClocks& clocks = team.message_clocks;
    const Clock* known = clocks.seen_by(thread.warp->rank);
    barrier.published_messages.resize(clocks.threads());
    for (std::size_t i = 0; i < clocks.threads(); ++i)
        barrier.published_messages[i] = std::max(barrier.published_messages[i], known[i] - (i == thread.warp->rank ? 1 : 0));
}

void arrive_at_transfer_barrier(unsigned address, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    const unsigned rank = address >> rank_shift;
    Block& block = rank == 0 ? *thread.block : thread.block->cluster->first[rank - 1];
    if (block.left == 0)
        transfer_fault("an arrival at a barrier of " + describe(block) +
                           ", which has ended, and its memory with it; a sync_cluster() is missing between this line and the end "
                           "of the kernel", "arrives", site);
    TransferBarrier& barrier = transfer_barrier(block, address & ((1u << rank_shift) - 1), "arrives", site);
    if (barrier.missing == 0)
        transfer_fault(text("more arrivals at a barrier than the %u of its phase", barrier.arrivals), "arrives", site);
    if (&block != thread.block) {
        const Clocks& clocks = thread.team->clocks;
        block.cluster_reads.resize(clocks.threads());
        block.cluster_reads[thread.rank] = {clocks.now(thread.rank), site};
        barrier.remote = true;
    }
    publish(barrier, thread);
    --barrier.missing;
    barrier.bytes += bytes;
    check_phase(barrier);
}

bool phase_ended(unsigned address, unsigned parity, bool in_cluster, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    TransferBarrier& barrier = transfer_barrier(*thread.block, address, "waits for a phase", site);
    if ((barrier.phase & 1) == parity) {
        thread.phased = &barrier;
        thread.phase = barrier.phase;
        return false;
    }
    if (barrier.ended_remote && !in_cluster)
        transfer_fault("a phase in which other blocks have arrived is waited for by phase_ended; it takes phase_ended_in_cluster",
                       "waits", site);
    thread.phased = nullptr;
    for (const auto& copy : std::exchange(barrier.landed, {})) thread.block->shared->release(*copy);
    thread.team->clocks.acquire(thread.rank, barrier.ended);
    Warp& warp = *thread.warp;
    warp.heard.resize(std::max(warp.heard.size(), barrier.ended_messages.size()));
    for (std::size_t i = 0; i < barrier.ended_messages.size(); ++i) warp.heard[i] = std::max(warp.heard[i], barrier.ended_messages[i]);
    warp.last_heard = nullptr;
    return true;
}

void fence_global_for_copies(const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    const MessageClocks& clocks = thread.team->message_clocks;
    const Clock* known = clocks.seen_by(thread.warp->rank);
    thread.fenced_for_copies.assign(known, known + clocks.threads());
}

void copy_to_blocks(unsigned destination, const void* source, unsigned bytes, unsigned barrier, unsigned blocks, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    Cluster& cluster = *thread.block->cluster;
    constexpr const char* verb = "starts a bulk copy";
    if (bytes == 0 || bytes % 16 != 0 || destination % 16 != 0)
        transfer_fault(text("a bulk copy of %u bytes to address %u: both must be multiples of 16", bytes, destination), verb, site);
    if (blocks > cluster.size)
        transfer_fault(text("a bulk copy to %u blocks of a cluster of %u", blocks, cluster.size), verb, site);
    auto copy = std::make_shared<BulkCopy>();
    *copy = {&thread, thread.team->clocks.now(thread.rank), source, destination, barrier, blocks, {}, site};
    copy->data.resize(bytes);
    global_memory->begin_bulk(thread, source, copy->data, site);
    for (unsigned rank = 0; rank < blocks; ++rank) {
        Block& to = blocks == 1 ? *thread.block : cluster.first[rank];
        if (to.left == 0)
            transfer_fault("a bulk copy to " + describe(to) + ", which has ended, and its memory with it", verb, site);
        transfer_barrier(to, barrier, verb, site);
        to.shared->expect_bulk(thread, destination, bytes, site);
        thread.team->under_way.push_back({&to, nullptr, nullptr, 0, copy});
    }
    thread.team->clocks.advance(thread.rank);
}

/// A copy lands in a block.
inline void land(Block& to, BulkCopy& copy, const std::shared_ptr<BulkCopy>& shared) {
    const Thread& thread = *copy.thread;
    Team& team = *thread.team;
    to.shared->land(copy);
    if (--copy.left == 0)
        for (unsigned at = 0; at < copy.data.size(); at += 16)
            global_memory->end_copy(thread, static_cast<const std::byte*>(copy.source) + at, 16, copy.site);
    TransferBarrier& barrier = to.transfer_barriers.at(copy.barrier);
    barrier.landed.push_back(shared);
    barrier.published.resize(team.clocks.group());
    Clock& known = barrier.published[thread.rank % team.clocks.group()];
    known = std::max(known, copy.clock);
    barrier.published_messages.resize(team.message_clocks.threads());
    const unsigned warp = thread.warp->rank;
    barrier.published_messages[warp] = std::max(barrier.published_messages[warp], team.message_clocks.now(warp));
    team.message_clocks.advance(warp);
    barrier.bytes -= static_cast<long long>(copy.data.size());
    check_phase(barrier);
}

}  // namespace tilesmith::emulate
