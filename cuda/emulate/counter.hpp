// Counters of global memory: a signal adds 1 and publishes what the signalling thread's warp knew when its lanes last met,
// barriers of the block included; a poll brings it to the polling warp.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "mailbox.hpp"

namespace tilesmith::emulate {

/// A word that starts as 0xffffffff and that signals add 1 to.
struct Counter {
    unsigned value = ~0u;
    std::vector<Clock> published;
    std::vector<Thread*> waiting;

    /// Returns who waits for it to change.
    std::vector<Thread*> signal(const Thread& thread) {
        const Clocks& clocks = thread.team->message_clocks;
        const Clock* known = clocks.seen_by(thread.warp->rank);
        const std::size_t own = thread.warp->rank;  // of it only what was done before its lanes met
        published.resize(clocks.threads());
        for (std::size_t i = 0; i < published.size(); ++i)
            published[i] = std::max(published[i], known[i] - (i == own ? 1 : 0));
        ++value;
        return std::exchange(waiting, {});
    }

    unsigned poll(Thread& thread) {
        Warp& warp = *thread.warp;
        warp.heard.resize(std::max(warp.heard.size(), published.size()));
        for (std::size_t i = 0; i < published.size(); ++i) warp.heard[i] = std::max(warp.heard[i], published[i]);
        warp.last_heard = nullptr;
        thread.counted = this;
        thread.count = value;
        return value;
    }
};

}  // namespace tilesmith::emulate
