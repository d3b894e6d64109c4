// The words for two accesses that nothing orders.
#pragma once

#include "machine.hpp"

namespace tilesmith::emulate {

/// One access as a report names it. `verb`: "reads", "writes", "copies (cp.async)".
struct Access {
    const Thread& thread;
    const char* verb;
    Site site;
};

inline std::string describe(const Access& access) {
    return describe_fully(access.thread) + " " + access.verb + " at " + describe(access.site);
}

/// Which barrier would have ordered the two threads.
inline const char* missing_barrier(const Thread& a, const Thread& b) {
    if (a.block->cluster != b.block->cluster)
        return "nothing orders threads of different blocks here; let one thread alone touch it";
    if (a.block != b.block) return "a sync_cluster() is missing between the two lines";
    if (a.warp == b.warp) return "a sync_warp() (or a wider barrier) is missing between the two lines";
    return "a sync_block() (or a named barrier that both warps take part in) is missing between the two lines";
}

[[noreturn]] inline void report_race(const std::string& place, const Access& first, const Access& second) {
    throw Fault{"race on " + place + "\n  first:  " + describe(first) + "\n  second: " + describe(second) + "\n  " +
                missing_barrier(first.thread, second.thread)};
}

}  // namespace tilesmith::emulate
