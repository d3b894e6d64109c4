// Global memory that blocks of a launch write for each other, and the counters by which they say that they have.
//
// What orders a store and another block's load is a chain of meetings, of a signal and of a poll that has seen it. Warps have
// clocks for that (mailbox.hpp): a signal publishes what the signalling thread's warp knew when its lanes last met, barriers of
// the block included, and a poll brings it to the polling warp.
#pragma once

#include <algorithm>
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
        const MessageClocks& clocks = thread.team->message_clocks;
        const Clock* known = clocks.seen_by(thread.warp->rank);
        published.resize(clocks.threads());
        const std::size_t own = thread.warp->rank;  // of it only what was done before its lanes met
        for (std::size_t i = 0; i < published.size(); ++i) published[i] = std::max(published[i], known[i] - (i == own ? 1 : 0));
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

/// Two bytes that the kernel writes and reads.
struct StoredCell {
    Deed written;
    std::vector<Deed> readers;  // since it was written, one of each warp
    unsigned copies = 0;        // from it that are under way

    void add_reader(const Access& access) {
        const Deed reading(access);
        for (Deed& reader : readers)
            if (reader.thread->warp == access.thread.warp) {
                reader = reading;
                return;
            }
        readers.push_back(reading);
    }

    /// Whether a load may follow; where(): names the place.
    template <class Where>
    void check_read(const Access& access, Where where) const {
        if (written.thread == nullptr)
            throw Fault{"read of " + where() + ", which nobody has written\n  " + describe(access) +
                        "\n  if another block is to write it, the reader must see its signal first"};
        if (!written.known_to(access.thread)) report(where(), describe(written, "writes"), access);
    }

    template <class Where>
    void write(const Access& access, Where where) {
        if (copies != 0)
            throw Fault{"race on " + where() + ": a cp_async from it may still be under way\n  second: " + describe(access) +
                        "\n  who copies must wait for the copy, and signal, before it is overwritten"};
        if (!written.known_to(access.thread)) report(where(), describe(written, "writes"), access);
        for (const Deed& reader : readers)
            if (!reader.known_to(access.thread)) report(where(), describe(reader, "reads"), access);
        written = Deed(access);
        readers.clear();
    }

  private:
    [[noreturn]] static void report(const std::string& place, const std::string& first, const Access& second) {
        throw Fault{"race on " + place + "\n  first:  " + first + "\n  second: " + describe(second) +
                    "\n  nothing orders these two: threads of a block must meet, those of different blocks signal and poll"};
    }
};

}  // namespace tilesmith::emulate
