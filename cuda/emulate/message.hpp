// Messages: words on their way to the shared memory of a block of the cluster, or to global memory. They land at a time and
// in an order that the seed draws, but for sync_cluster, which waits for all of them that go to the cluster.
#pragma once

#include "global.hpp"
#include "scheduler.hpp"
#include "shared.hpp"
#include "transfer.hpp"

namespace tilesmith::emulate {

unsigned map_to_cluster(unsigned address, unsigned rank, const Site& site) {
    const unsigned size = running->block->cluster->size;
    if (rank >= size)
        throw Fault{text("address of the shared memory of rank %u of a cluster with ranks 0 to %u\n  ", rank, size - 1) +
                    describe(Access{*running, "asks for it", site})};
    return (rank + 1) << rank_shift | address;
}

void send_word(unsigned cluster_address, unsigned word, const Site& site) {
    scheduler->before_access(site);
    const Thread& thread = *running;
    const unsigned rank = (cluster_address >> rank_shift) - 1;
    if (rank >= thread.block->cluster->size)
        throw Fault{text("a message to %#x, which is no address of the cluster\n  ", cluster_address) +
                    describe(Access{thread, "sends", site})};
    Block& to = thread.block->cluster->first[rank];
    if (to.left == 0)
        throw Fault{"a message to " + describe(to) + ", which has ended, and its memory with it\n  " +
                    describe(Access{thread, "sends", site}) +
                    "\n  a sync_cluster() is missing between this line and the end of the kernel"};
    const auto [box, offset] =
        to.shared->expect_message(thread, cluster_address & ((1u << rank_shift) - 1), word, site);
    to.unheard.insert_or_assign(offset, Sending{&thread, site});
    thread.team->under_way.push_back({&to, box, to.shared->place_of(offset), word});
}

inline void deliver(Team& team, unsigned index) {
    const Message message = std::exchange(team.under_way[index], team.under_way.back());
    team.under_way.pop_back();
    if (message.copy != nullptr) return land(*message.to, *message.copy, message.copy);
    for (Thread* waiting : message.box->arrive(message.place, message.word)) scheduler->wake(*waiting);
}

/// All threads of a cluster have met: what they sent has come.
inline void deliver_all(const Cluster& cluster) {
    Team& team = *running->team;
    for (unsigned i = 0; i < team.under_way.size();)
        if (const Block* to = team.under_way[i].to; to != nullptr && to->cluster == &cluster && team.under_way[i].copy == nullptr)
            deliver(team, i);
        else
            ++i;
    for (unsigned rank = 0; rank < cluster.size; ++rank) cluster.first[rank].unheard.clear();
}

void poll_shared(unsigned address, void* out, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    const Awaited missing = thread.block->shared->poll(thread, address, out, bytes, site);
    if (thread.awaited.box == nullptr) thread.awaited = missing;
    auto& unheard = thread.block->unheard;
    const unsigned offset = address - shared_base;
    for (auto it = unheard.lower_bound(offset); it != unheard.end() && it->first < offset + bytes;)
        it = thread.block->shared->arrived(it->first) ? unheard.erase(it) : std::next(it);
}

void wait_for_message(const Site& site) {
    Thread& thread = *running;
    if (TransferBarrier* barrier = std::exchange(thread.phased, nullptr); barrier != nullptr) {
        if (barrier->phase != thread.phase) return;
        barrier->waiting.push_back(&thread);
        scheduler->wait("poll_again", site);
        return;
    }
    if (Counter* counter = std::exchange(thread.counted, nullptr); counter != nullptr) {
        if (counter->value != thread.count) return;
        counter->waiting.push_back(&thread);
        scheduler->wait("poll_again", site);
        return;
    }
    const Awaited awaited = std::exchange(thread.awaited, {});
    if (awaited.box == nullptr || !awaited.box->waits()) return;
    awaited.box->waiting.push_back(&thread);
    thread.polled = awaited;
    scheduler->wait("poll_again", site);
    thread.polled = {};
}

void poison_shared(unsigned address, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    running->block->shared->poison(*running, address, bytes, site);
}

void send_global_word(void* address, unsigned word, const Site& site) {
    scheduler->before_access(site);
    running->team->under_way.push_back(global_memory->expect_message(*running, address, word, site));
}

void poll_global(const void* address, void* out, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    const Awaited missing = global_memory->poll(*running, address, out, bytes, site);
    if (running->awaited.box == nullptr) running->awaited = missing;
}

void poison_global(void* address, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    global_memory->poison(*running, address, bytes, site);
}

void signal_counter(void* address, const Site& site) {
    scheduler->before_access(site);
    for (Thread* waiting : global_memory->counter(*running, address, "signals", site).signal(*running))
        scheduler->wake(*waiting);
}

unsigned poll_counter(const void* address, const Site& site) {
    scheduler->before_access(site);
    return global_memory->counter(*running, address, "polls", site).poll(*running);
}

void read_stored(const void* address, void* out, unsigned bytes, bool cached, const Site& site) {
    scheduler->before_access(site);
    global_memory->read_stored(*running, address, out, bytes, cached, site);
}

void fence(const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    end_sending(thread);
    const Clock now = thread.team->message_clocks.now(thread.warp->rank);
    std::erase_if(thread.block->unfenced,
                  [&](Mailbox* box) { return !box->poisoned.unfenced() || box->poisoned.fenced(thread, now); });
    thread.team->message_clocks.advance(thread.warp->rank);
}

}  // namespace tilesmith::emulate
