// The emulator as one library: the functions of calls.hpp, and the way in from Python, a C function that runs a launch of
// a kernel and reports what went wrong.
//
// Each kernel is a library of its own that needs this one. Include it in one file only.
#pragma once

#include <algorithm>

#include "async.hpp"
#include "barrier.hpp"
#include "cluster.hpp"
#include "matrix.hpp"
#include "trap.hpp"
#include "warpgroup.hpp"

extern "C" {

/// Kinds of argument: 0 a null pointer, 1 an array the kernel reads, 2 one it writes, 3 an integer, 4 one of mail,
/// 5 one of counters, 6 one that blocks store in for each other, 7 one it writes that earlier launches have begun. An array: what
/// exists of it, in the order and meaning of tilesmith::emulate::Windows; `data` holds that, one window after another.
struct TilesmithArgument {
    const char* name;
    int kind;
    int integer;
    void* data;
    unsigned long long extent, first, window, stride;
};

/// together: how many blocks run at the same time, one cluster of them or several. teams: which of the groups of so many
/// blocks run at all, team_count of them. seconds: when to give up.
struct TilesmithLaunch {
    unsigned grid[3];
    unsigned block, shared_memory, together, cluster;
    const unsigned* teams;
    unsigned team_count;
    unsigned long long seed;
    double seconds;
};
}

namespace tilesmith::emulate {

Place place() {
    const Block& block = *running->block;
    return {running->index, block.x, block.y, running->team->blocks_x, block.cluster_rank, block.cluster->size};
}

unsigned long long ticks() { return ++scheduler->ticks; }

void read_shared(unsigned address, void* out, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    running->block->shared->read(*running, address, out, bytes, site);
}
void write_shared(unsigned address, const void* in, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    running->block->shared->write(*running, address, in, bytes, site);
}
void read_global(const void* address, void* out, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    global_memory->read(*running, address, out, bytes, site);
}
void write_global(void* address, const void* in, unsigned bytes, const Site& site) {
    scheduler->before_access(site);
    global_memory->write(*running, address, in, bytes, site);
}

/// Call the kernel with its arguments.
using StartKernel = void (*)(const Value*);

inline StartKernel start_kernel = nullptr;
inline std::vector<Value> values;
inline void run_thread() {
    start_kernel(values.data());
    leave_block();
}

inline void fill_team(Team& team, const TilesmithLaunch& launch) {
    team.blocks_x = launch.grid[0];
    team.blocks.resize(launch.together);
    team.clusters.resize(launch.together / launch.cluster);
    for (unsigned i = 0; i < team.clusters.size(); ++i) {
        team.clusters[i].first = &team.blocks[i * launch.cluster];
        team.clusters[i].size = launch.cluster;
    }
    for (unsigned i = 0; i < launch.together; ++i) {
        Block& block = team.blocks[i];
        const unsigned number = team.number * launch.together + i;
        block.x = number % launch.grid[0];
        block.y = number / launch.grid[0] % launch.grid[1];
        block.z = number / launch.grid[0] / launch.grid[1];
        block.first_rank = i * launch.block;
        block.cluster = &team.clusters[i / launch.cluster];
        block.cluster_rank = i % launch.cluster;
        block.left = launch.block;
        block.shared = std::make_unique<SharedMemory>(block, launch.shared_memory);
        block.warps.resize(launch.block / warp_size);
        block.threads.resize(launch.block);
        for (unsigned w = 0; w < block.warps.size(); ++w) {
            block.warps[w].block = &block;
            block.warps[w].index = w;
            block.warps[w].rank = block.first_rank / warp_size + w;
        }
        for (unsigned t = 0; t < launch.block; ++t) {
            Thread& thread = block.threads[t];
            thread.index = t;
            thread.rank = block.first_rank + t;
            thread.block = &block;
            thread.warp = &block.warps[t / warp_size];
            thread.team = &team;
        }
    }
}

/// Run a team; a trap in one of its threads becomes a Fault.
inline void run_team(Team& team, Traps& traps) {
    if (sigsetjmp(traps.resume, 1) == 0) {
        scheduler->run(team);
        return;
    }
    if (running == nullptr) throw Fault{text("the emulator itself was stopped by signal %d", traps.signal)};
    const std::string who = "\n  " + describe_fully(*running);
    if (scheduler->stacks().guards(traps.address))
        throw Fault{text("stack overflow: a thread needs more than %zu bytes of local variables", Stacks::size) + who};
    if (traps.signal == SIGFPE) throw Fault{"integer division by zero (or overflow)" + who};
    throw Fault{text("direct access to %p: signal %d; kernels reach memory through the functions of ptx.cuh",
                     traps.address, traps.signal) +
                who};
}

inline void run_launch(const TilesmithLaunch& launch, const TilesmithArgument* arguments, int count) {
    GlobalMemory memory;
    for (int i = 0; i < count; ++i) {
        const TilesmithArgument& argument = arguments[i];
        if (argument.kind == 0) memory.add_null(argument.name);
        if (argument.kind == 0 || argument.kind == 3) continue;
        using Kind = GlobalMemory::Kind;
        constexpr std::array kinds{Kind::input, Kind::output, Kind::input, Kind::mail, Kind::counters, Kind::stored,
                                   Kind::begun};
        const Kind kind = kinds[static_cast<std::size_t>(argument.kind) - 1];
        memory.add(argument.name, argument.data, {argument.extent, argument.first, argument.window, argument.stride}, kind);
    }
    values.clear();
    for (int i = 0; i < count; ++i) values.push_back({memory.address(arguments[i].name), arguments[i].integer});
    Scheduler dispatcher(launch.seed, launch.seconds, std::size_t{launch.together} * launch.block, &run_thread);
    interrupted = 0;
    global_memory = &memory;
    scheduler = &dispatcher;
    Traps traps;

    std::vector<unsigned> order(launch.teams, launch.teams + launch.team_count);
    for (std::size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[dispatcher.random.below(static_cast<unsigned>(i))]);
    for (const unsigned number : order) {
        Team team(launch.together * launch.block, launch.cluster * launch.block);
        team.number = number;
        fill_team(team, launch);
        run_team(team, traps);
    }
    memory.copy_outputs_back();
}

}  // namespace tilesmith::emulate

/// Run a launch of the kernel that `start` calls. Returns 0, or 1 with the report of the first fault in `report` (at most
/// `capacity` bytes, ended by a zero); outputs are filled only when it returns 0. Not for two threads at a time.
extern "C" __attribute__((visibility("default"))) int tilesmith_emulate(const TilesmithLaunch* launch,
                                                                        const TilesmithArgument* arguments, int count,
                                                                        tilesmith::emulate::StartKernel start,
                                                                        char* report, unsigned long long capacity) {
    using namespace tilesmith::emulate;
    start_kernel = start;
    try {
        run_launch(*launch, arguments, count);
        return 0;
    } catch (const Fault& fault) {
        std::snprintf(report, capacity, "%s", fault.report.c_str());
    } catch (const std::exception& error) {
        std::snprintf(report, capacity, "the emulator itself failed: %s", error.what());
    }
    return 1;
}
