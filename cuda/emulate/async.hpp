// cp.async: the source is read when the copy is issued, the destination written as late as the rules allow, which is
// when the issuing thread waits for the copy's group. PTX ISA, "Data Movement and Conversion Instructions:
// Asynchronous copy".
#pragma once

#include "global.hpp"
#include "scheduler.hpp"
#include "shared.hpp"

namespace tilesmith::emulate {

/// source: null for zeros.
void issue_copy(unsigned destination, const void* source, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    Copy copy{destination, bytes, thread.groups, source, {}, site};
    if (source != nullptr) global_memory->begin_copy(thread, source, copy.data.data(), bytes, site);
    thread.block->shared->expect_copy(thread, destination, bytes, site);
    thread.copies.push_back(copy);
}

void commit_copies() { ++running->groups; }

/// Land the copies of all groups but the `pending` newest. Copies that were not committed stay under way.
void wait_for_copies(unsigned pending) {
    Thread& thread = *running;
    const unsigned done = thread.groups > pending ? thread.groups - pending : 0;  // groups 0 .. done - 1
    std::size_t landed = 0;
    for (; landed < thread.copies.size() && thread.copies[landed].group < done; ++landed) {
        const Copy& copy = thread.copies[landed];
        if (copy.source != nullptr) global_memory->end_copy(thread, copy.source, copy.bytes, copy.site);
        thread.block->shared->land(thread, copy);
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace tilesmith::emulate
