// The way in from Python: one C function that runs a launch and reports what went wrong.
//
// The generated file is this header, then the kernel, then start_kernel(), which calls the kernel with its arguments.
#pragma once

#include <algorithm>
#include <numeric>

#include "ptx.hpp"
#include "trap.hpp"

extern "C" {

/// Kinds of argument: 0 a null pointer, 1 an array the kernel reads, 2 an array it writes, 3 an integer.
struct TilesmithArgument {
    const char* name;
    int kind;
    int integer;
    void* data;
    unsigned long long bytes;
};

/// together: how many blocks run at the same time.
struct TilesmithLaunch {
    unsigned grid[3];
    unsigned block, shared_memory, together;
    unsigned long long seed;
};
}

namespace tilesmith::emulate {

/// One argument on its way into the kernel: becomes whatever pointer or integer the parameter is.
struct Value {
    struct Pointer {
        void* address;
        template <class Type>
        operator Type*() const {
            return static_cast<Type*>(address);
        }
    };
    void* address = nullptr;
    int number = 0;

    Pointer pointer() const { return {address}; }
    int integer() const { return number; }
};

/// Call the kernel; defined at the end of the generated file.
void start_kernel(const Value* values);

inline std::vector<Value> values;
inline void run_thread() { start_kernel(values.data()); }

inline void fill_team(Team& team, const TilesmithLaunch& launch) {
    for (unsigned i = 0; i < launch.together; ++i) {
        Block& block = team.blocks[i];
        const unsigned number = team.number * launch.together + i;
        block.x = number % launch.grid[0];
        block.y = number / launch.grid[0] % launch.grid[1];
        block.z = number / launch.grid[0] / launch.grid[1];
        block.first_rank = i * launch.block;
        block.shared = std::make_unique<SharedMemory>(launch.shared_memory);
        block.warps.resize(launch.block / warp_size);
        block.threads.resize(launch.block);
        for (unsigned w = 0; w < block.warps.size(); ++w) {
            block.warps[w].block = &block;
            block.warps[w].index = w;
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
        if (argument.kind == 1 || argument.kind == 2)
            memory.add(argument.name, argument.data, argument.bytes, argument.kind == 2);
    }
    memory.place();
    values.clear();
    for (int i = 0; i < count; ++i) values.push_back({memory.address(arguments[i].name), arguments[i].integer});
    Scheduler dispatcher(launch.seed, static_cast<std::size_t>(launch.together) * launch.block, &run_thread);
    global_memory = &memory;
    scheduler = &dispatcher;
    Traps traps;

    const unsigned blocks = launch.grid[0] * launch.grid[1] * launch.grid[2];
    std::vector<unsigned> order(blocks / launch.together);
    std::iota(order.begin(), order.end(), 0u);
    for (std::size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1], order[dispatcher.random.below(static_cast<unsigned>(i))]);
    for (const unsigned number : order) {
        Team team(launch.together * launch.block);
        team.number = number;
        team.blocks.resize(launch.together);
        fill_team(team, launch);
        run_team(team, traps);
    }
    memory.copy_outputs_back();
}

}  // namespace tilesmith::emulate

/// Run a launch. Returns 0, or 1 with the report of the first fault in `report` (at most `capacity` bytes, ended by a
/// zero); outputs are filled only when it returns 0. Not for two threads at a time.
extern "C" __attribute__((visibility("default"))) int tilesmith_emulate(const TilesmithLaunch* launch,
                                                                        const TilesmithArgument* arguments, int count,
                                                                        char* report, unsigned long long capacity) {
    using namespace tilesmith::emulate;
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
