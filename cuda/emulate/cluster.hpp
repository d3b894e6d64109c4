// Reads of another block's shared memory, and whether that block lives until they are made and its messages have come.
//
// A block's memory is gone when its last thread has ended. That a read happened to come before the end says nothing:
// some thread of the block must know of the read when it ends, as it does after a barrier of the cluster.
#pragma once

#include <algorithm>

#include "message.hpp"

namespace tilesmith::emulate {

[[noreturn]] inline void report_ended(const Block& owner, const Access& read) {
    throw Fault{"use of the shared memory of " + describe(owner) +
                ", which may have ended by then, and its memory with it\n  " + describe(read) +
                "\n  a sync_cluster() is missing between this line and the end of the kernel"};
}

void read_cluster(unsigned rank, unsigned address, void* out, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    const Thread& thread = *running;
    const Cluster& cluster = *thread.block->cluster;
    const Access access{thread, "reads", site};
    if (rank >= cluster.size)
        throw Fault{text("read of the shared memory of rank %u of a cluster with ranks 0 to %u\n  ", rank,
                         cluster.size - 1) +
                    describe(access)};
    Block& owner = cluster.first[rank];
    if (owner.left == 0) report_ended(owner, access);
    owner.shared->read(thread, address, out, bytes, site);
    const Clocks& clocks = thread.team->clocks;
    owner.cluster_reads.resize(clocks.threads());
    owner.cluster_reads[thread.rank] = {clocks.now(thread.rank), site};
}

/// The running thread ends. With the last thread of its block the block's memory goes.
inline void leave_block() {
    Block& block = *running->block;
    if (--block.left != 0) return;
    Team& team = *running->team;
    for (unsigned reader = 0; reader < block.cluster_reads.size(); ++reader) {
        const ClusterRead& read = block.cluster_reads[reader];
        const auto knows = [&](const Thread& thread) { return team.clocks.ordered(reader, read.clock, thread.rank); };
        if (read.clock != 0 && std::none_of(block.threads.begin(), block.threads.end(), knows))
            report_ended(block, {team.thread(reader), "uses it", read.site});
    }
    for (const Message& message : team.under_way)
        if (message.to == &block && message.copy != nullptr)
            report_ended(block, {*message.copy->thread, "starts a bulk copy to it", message.copy->site});
    if (block.unheard.empty()) return;
    const auto& [offset, sending] = *block.unheard.begin();
    throw Fault{text("a message to offset %u of the shared memory of ", offset) + describe(block) +
                ", which may have ended before it comes, and its memory with it\n  " +
                describe(Access{*sending.thread, "sends", sending.site}) +
                "\n  a sync_cluster() is missing between this line and the end of the kernel"};
}

}  // namespace tilesmith::emulate
