// Operations that the 32 lanes of a warp make together.
#pragma once

#include "mailbox.hpp"
#include "scheduler.hpp"

namespace tilesmith::emulate {

/// The running lane gives `in` and has `out` once all 32 lanes have come to the same call; the last to come calls
/// perform(warp), which reads and fills every lane's input and output. Orders nothing in memory by itself.
template <class In, class Out, class Perform>
void collective(const char* operation, const Site& site, const In& in, Out& out, Perform perform) {
    Thread& thread = *running;
    Warp& warp = *thread.warp;
    if (warp.arrived == 0) {
        warp.operation = operation;
        warp.site = site;
    } else if (!same(warp.site, site) || warp.operation != operation) {
        std::vector<unsigned> lanes;
        for (unsigned lane = 0; lane < warp_size; ++lane)
            if (warp.arrived >> lane & 1) lanes.push_back(lane);
        throw Fault{"a warp has diverged: warp " + std::to_string(warp.index) + ", lane" +
                    (lanes.size() == 1 ? " " : "s ") + ranges(lanes) + " in " + warp.operation + " at " +
                    describe(warp.site) + "\n  " + describe_fully(thread) + " calls " + operation + " at " +
                    describe(site) + "\n  all 32 lanes must make the same call"};
    }
    warp.input[thread.lane()] = &in;
    warp.output[thread.lane()] = &out;
    warp.arrived |= 1u << thread.lane();
    if (warp.arrived != ~0u) {
        scheduler->wait(operation, site);
        return;
    }
    warp.arrived = 0;
    perform(warp);
    Thread* lanes = &warp.block->threads[warp.index * warp_size];
    for (unsigned lane = 0; lane < warp_size; ++lane)
        if (&lanes[lane] != &thread) scheduler->wake(lanes[lane]);
}

template <class In>
const In& input(const Warp& warp, unsigned lane) {
    return *static_cast<const In*>(warp.input[lane]);
}
template <class Out>
Out& output(const Warp& warp, unsigned lane) {
    return *static_cast<Out*>(warp.output[lane]);
}

struct Shuffle {
    unsigned value, lanes;
};

/// __syncwarp: the one collective that orders memory (CUDA C++ Programming Guide, Synchronization Functions).
void sync_whole_warp(const Site& site) {
    char nothing = 0;
    collective("sync_warp", site, nothing, nothing, [](Warp& warp) {
        Clocks& clocks = running->team->clocks;
        const unsigned first = warp.block->first_rank + warp.index * warp_size;
        Published published;
        for (unsigned lane = 0; lane < warp_size; ++lane) clocks.release(first + lane, published);
        for (unsigned lane = 0; lane < warp_size; ++lane) clocks.rejoin(first + lane, published);
        share_heard(warp);
    });
}

/// __any_sync. Orders no ordinary memory, but what a lane has polled all know.
bool vote_any(bool value, const Site& site) {
    bool result = false;
    collective("any_lane", site, value, result, [](Warp& warp) {
        bool any = false;
        for (unsigned lane = 0; lane < warp_size; ++lane) any |= input<bool>(warp, lane);
        for (unsigned lane = 0; lane < warp_size; ++lane) output<bool>(warp, lane) = any;
        share_heard(warp);
    });
    return result;
}

/// __ballot_sync. Orders no memory.
unsigned vote_lanes(bool value, const Site& site) {
    unsigned result = 0;
    collective("ballot", site, value, result, [](Warp& warp) {
        unsigned mask = 0;
        for (unsigned lane = 0; lane < warp_size; ++lane) mask |= static_cast<unsigned>(input<bool>(warp, lane)) << lane;
        for (unsigned lane = 0; lane < warp_size; ++lane) output<unsigned>(warp, lane) = mask;
    });
    return result;
}

/// __shfl_xor_sync
unsigned exchange_lanes(unsigned value, unsigned lanes, const Site& site) {
    if (lanes >= warp_size)
        throw Fault{text("shuffle_xor with %u: lanes are 0 to 31\n  ", lanes) + describe_fully(*running) + " at " +
                    describe(site)};
    unsigned result = 0;
    const Shuffle in{value, lanes};
    collective("shuffle_xor", site, in, result, [](Warp& warp) {
        for (unsigned lane = 0; lane < warp_size; ++lane)
            output<unsigned>(warp, lane) = input<Shuffle>(warp, lane ^ input<Shuffle>(warp, lane).lanes).value;
    });
    return result;
}

}  // namespace tilesmith::emulate
