// Who runs next: one thread at a time, drawn from the seed, until every thread of the team has finished.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "machine.hpp"

namespace tilesmith::emulate {

/// SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014): small, and any seed is a good one.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// Uniform in 0 .. bound - 1; the bias of a 32-bit product is of no matter here.
    unsigned below(unsigned bound) { return static_cast<unsigned>(((next() >> 32) * bound) >> 32); }

  private:
    std::uint64_t state_;
};

/// A message that is under way lands (message.hpp).
inline void deliver(Team& team, unsigned index);

class Scheduler;
inline Scheduler* scheduler = nullptr;
inline Thread* running = nullptr;
inline volatile std::sig_atomic_t interrupted = 0;  // set by a signal handler: stop at the next switch

class Scheduler {
    using Time = std::chrono::steady_clock;

  public:
    /// `body` is what every thread runs; `seconds` are for all teams together.
    Scheduler(std::uint64_t seed, double seconds, std::size_t stacks, void (*body)())
        : random(seed), pace_(2u << 2 * (seed % 3)), seconds_(seconds), end_(Time::now() + std::chrono::duration<double>(seconds)), stacks_(stacks),
          body_(body) {}

    Random random;
    unsigned long long ticks = 0;  // accesses, switches and looks at this clock so far
    const Stacks& stacks() const { return stacks_; }

    /// Run all threads of a team to their end. Throws the Fault of a thread, a deadlock, or that time is up.
    void run(Team& team) {
        ready_.clear();
        fault_ = {};
        unsigned left = 0;
        for (Block& block : team.blocks)
            for (Thread& thread : block.threads) {
                thread.fiber.prepare(stacks_[thread.rank], &Scheduler::begin);
                ready_.push_back(&thread);
                ++left;
            }
        for (;;) {
            // Messages come late: the fewer, the more of them are under way together.
            if (const auto count = static_cast<unsigned>(team.under_way.size());
                count != 0 && (ready_.empty() || random.below(pace_) == 0))
                deliver(team, random.below(count));
            if (ready_.empty() && team.under_way.empty()) break;
            if (ready_.empty()) continue;
            const unsigned pick = random.below(static_cast<unsigned>(ready_.size()));
            Thread* thread = std::exchange(ready_[pick], ready_.back());
            ready_.pop_back();
            running = thread;
            ++ticks;
            thread->fiber.enter();
            running = nullptr;
            if (!fault_.report.empty()) throw fault_;
            if (thread->state == Thread::State::finished) --left;
            check_time(*thread);
        }
        if (left != 0) throw Fault{deadlock(team)};
    }

    /// One memory access in `preemption` gives way to another thread first.
    void before_access(const Site& site) {
        ++ticks;
        constexpr unsigned preemption = 32;
        if (random.next() % preemption != 0) return;
        running->operation = "memory access";
        running->site = site;
        ready_.push_back(running);
        running->fiber.leave();
    }

    /// Suspend the running thread until it is woken.
    void wait(const char* operation, const Site& site) {
        Thread& thread = *running;
        thread.state = Thread::State::waiting;
        thread.operation = operation;
        thread.site = site;
        thread.fiber.leave();
    }
    void wake(Thread& thread) {
        thread.state = Thread::State::ready;
        ready_.push_back(&thread);
    }

  private:
    static void begin() {
        Scheduler& self = *scheduler;
        std::string report;
        try {
            self.body_();
        } catch (Fault& fault) {
            report = std::move(fault.report);
        } catch (const std::exception& error) {
            report = std::string("the emulator itself failed: ") + error.what();
        }
        self.fault_.report = std::move(report);
        running->state = Thread::State::finished;
        running->fiber.leave();
    }

    void check_time(const Thread& thread) {
        constexpr unsigned interval = 256;  // switches between two looks at the clock
        if (interrupted) throw Fault{"interrupted"};
        if (++switches_ % interval != 0 || Time::now() < end_) return;
        throw Fault{text("still running after %g s: a loop that does not end, or too large a shape to emulate\n  ",
                         seconds_) +
                    describe_fully(thread) + " came last to " + (thread.operation ? thread.operation : "its end") +
                    " at " + describe(thread.site)};
    }
    static std::string deadlock(Team& team);

    unsigned pace_;  // switches between two messages that land, on average
    double seconds_;
    std::chrono::time_point<Time, std::chrono::duration<double>> end_;
    unsigned switches_ = 0;
    Stacks stacks_;
    void (*body_)();
    std::vector<Thread*> ready_;
    Fault fault_;
};

/// Every barrier and collective that is waited at, by whom and where, and who has finished.
inline std::string Scheduler::deadlock(Team& team) {
    std::string report = "deadlock: no thread can run";
    for (const Cluster& cluster : team.clusters)
        if (const Barrier& barrier = cluster.barrier; !barrier.arrived.empty())
            report += text("\n  %s:\n    %s at %s: %zu of %u threads have arrived", describe(cluster).c_str(),
                           barrier.operation, describe(barrier.site).c_str(), barrier.arrived.size(), barrier.expected);
    for (Block& block : team.blocks) {
        std::string lines;
        for (unsigned id = 0; id < named_barriers; ++id) {
            const Barrier& barrier = block.barriers[id];
            if (barrier.arrived.empty()) continue;
            std::vector<unsigned> arrived;
            for (const Thread* thread : barrier.arrived) arrived.push_back(thread->index);
            std::sort(arrived.begin(), arrived.end());
            lines += text("\n    barrier %u (%s at %s): %zu of %u threads have arrived: ", id, barrier.operation,
                          describe(barrier.site).c_str(), arrived.size(), barrier.expected) +
                     ranges(arrived);
        }
        for (const Warp& warp : block.warps) {
            if (warp.arrived == 0) continue;
            std::vector<unsigned> missing;
            for (unsigned lane = 0; lane < warp_size; ++lane)
                if ((warp.arrived >> lane & 1) == 0) missing.push_back(lane);
            lines += text("\n    warp %u: %s needs all 32 lanes; missing: %s", warp.index, warp.operation,
                          ranges(missing).c_str());
        }
        std::map<std::string, std::vector<unsigned>> places;
        std::vector<unsigned> finished;
        std::map<std::string, std::set<std::uint64_t>> awaited;  // offsets, by the array
        for (const Thread& thread : block.threads) {
            if (const Awaited& word = thread.polled; word.box != nullptr)
                awaited[word.array ? text(" of '%s'", word.array->c_str()) : ""].insert(word.offset);
            if (thread.state == Thread::State::finished)
                finished.push_back(thread.index);
            else
                places[std::string(thread.operation) + " at " + describe(thread.site)].push_back(thread.index);
        }
        for (const auto& [array, offsets] : awaited)
            lines += text("\n    %zu words%s are polled for to which nobody sends a message any more, the first at offset %zu",
                          offsets.size(), array.c_str(), std::size_t{*offsets.begin()});
        if (places.empty() && block.cluster->barrier.arrived.empty()) continue;
        for (const auto& [place, threads] : places)
            lines += "\n    " + threads_text(threads) + (threads.size() == 1 ? " waits in " : " wait in ") + place;
        if (!finished.empty())
            lines += "\n    " + threads_text(finished) + (finished.size() == 1 ? " has" : " have") + " finished";
        report += "\n  " + describe(block) + ":" + lines;
    }
    return report;
}

}  // namespace tilesmith::emulate
