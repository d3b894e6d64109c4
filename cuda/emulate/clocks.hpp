// Vector clocks: which thread knows of which other's past.
//
// Each thread counts its own releases, and knows, for every thread of its group, the latest count it has learnt of through a
// barrier. An access of thread t at count c happened before what thread o does now if o knows of at least c for t.
// Method: L. Lamport, CACM 21(7), 1978; F. Mattern, 1989; the use for races follows C. Flanagan and S. N. Freund,
// "FastTrack", PLDI 2009.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace tilesmith::emulate {

using Clock = std::uint32_t;  // 0: never

/// What threads have published at one place, a barrier for instance, for all that meet there to learn.
struct Published {
    std::shared_ptr<std::vector<Clock>> clocks;  // by the place in the group; none: nothing yet
    std::vector<std::shared_ptr<const std::vector<Clock>>> holds;  // what was published before and is part of it
};

/// Of `threads` threads in groups of `group`: threads of different groups never learn of each other. Threads that meet know
/// the same afterwards but for their own counts, so that they share what they know: a table would hold a number for each pair.
class Clocks {
  public:
    Clocks(std::size_t threads, std::size_t group) : group_(group), own_(threads, 1), known_(threads) {}

    std::size_t threads() const { return own_.size(); }
    Clock now(std::size_t thread) const { return own_[thread]; }

    /// Whether what `thread` did at count `clock` is ordered before what `observer` does now.
    bool ordered(std::size_t thread, Clock clock, std::size_t observer) const {
        if (thread == observer) return own_[thread] >= clock;
        if (thread / group_ != observer / group_) return false;
        return (known_[observer] ? (*known_[observer])[thread % group_] : 0) >= clock;
    }

    /// Publish all that `thread` did and knows so far into `into`; what it does next is not part of it.
    void release(std::size_t thread, Published& into) {
        if (!into.clocks) into.clocks = std::make_shared<std::vector<Clock>>(group_, 0);
        std::vector<Clock>& made = *into.clocks;
        if (const auto& known = known_[thread];
            known && std::find(into.holds.begin(), into.holds.end(), known) == into.holds.end()) {
            for (std::size_t i = 0; i < group_; ++i) made[i] = std::max(made[i], (*known)[i]);
            into.holds.push_back(known);
        }
        made[thread % group_] = std::max(made[thread % group_], own_[thread]);
        ++own_[thread];
    }
    /// A thread that has itself published all that it knew into `from` learns the rest. Nothing is published into that any
    /// more.
    void rejoin(std::size_t thread, const Published& from) { known_[thread] = from.clocks; }

    /// How many threads are a group: what is published where threads learn one by one has a count of each.
    std::size_t group() const { return group_; }
    /// What `thread` does next comes after what it did.
    void advance(std::size_t thread) { ++own_[thread]; }
    /// Publish, as above, where not all that learn of it have published there.
    void release(std::size_t thread, std::vector<Clock>& into) {
        into.resize(group_);
        if (const auto& known = known_[thread])
            for (std::size_t i = 0; i < group_; ++i) into[i] = std::max(into[i], (*known)[i]);
        into[thread % group_] = std::max(into[thread % group_], own_[thread]);
        advance(thread);
    }
    /// Learn all that was published into `from`.
    void acquire(std::size_t thread, const std::vector<Clock>& from) {
        if (from.empty()) return;
        std::vector<Clock> learnt = from;
        if (const auto& known = known_[thread])
            for (std::size_t i = 0; i < group_; ++i) learnt[i] = std::max(learnt[i], (*known)[i]);
        known_[thread] = std::make_shared<const std::vector<Clock>>(std::move(learnt));
    }

  private:
    std::size_t group_;
    std::vector<Clock> own_;
    std::vector<std::shared_ptr<const std::vector<Clock>>> known_;  // of others than itself; none: nothing yet
};

/// Of threads, or warps, that also learn of each other one by one, by messages; all are of one group.
class MessageClocks {
  public:
    explicit MessageClocks(std::size_t threads) : threads_(threads), table_(threads * threads, 0) {
        for (std::size_t i = 0; i < threads_; ++i) own(i) = 1;
    }

    std::size_t threads() const { return threads_; }
    Clock now(std::size_t thread) const { return seen_by(thread)[thread]; }
    /// What a thread has learnt of all.
    const Clock* seen_by(std::size_t thread) const { return table_.data() + thread * threads_; }

    /// As of Clocks.
    bool ordered(std::size_t thread, Clock clock, std::size_t observer) const {
        return seen_by(observer)[thread] >= clock;
    }
    void release(std::size_t thread, std::vector<Clock>& into) {
        const Clock* known = row(thread);
        into.resize(threads_);
        for (std::size_t i = 0; i < threads_; ++i) into[i] = std::max(into[i], known[i]);
        ++own(thread);
    }
    /// What `thread` does next comes after what it did.
    void advance(std::size_t thread) { ++own(thread); }
    /// Learn all that was published into `from`.
    void acquire(std::size_t thread, const std::vector<Clock>& from) {
        Clock* known = row(thread);
        for (std::size_t i = 0; i < from.size(); ++i) known[i] = std::max(known[i], from[i]);
    }

  private:
    Clock* row(std::size_t thread) { return table_.data() + thread * threads_; }
    Clock& own(std::size_t thread) { return row(thread)[thread]; }
    std::size_t threads_;
    std::vector<Clock> table_;
};

}  // namespace tilesmith::emulate
