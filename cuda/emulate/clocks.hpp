// Vector clocks: which thread knows of which other's past.
//
// Each thread counts its own releases; its row holds, for every thread of its group, the latest count it has learnt of through a
// barrier. An access of thread t at count c happened before what thread o does now if o's row has at least c for t.
// Method: L. Lamport, CACM 21(7), 1978; F. Mattern, 1989; the use for races follows C. Flanagan and S. N. Freund,
// "FastTrack", PLDI 2009.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tilesmith::emulate {

using Clock = std::uint32_t;  // 0: never

/// Of `threads` threads in groups of `group`: threads of different groups never learn of each other.
class Clocks {
  public:
    Clocks(std::size_t threads, std::size_t group) : threads_(threads), group_(group), table_(threads * group, 0) {
        for (std::size_t i = 0; i < threads_; ++i) own(i) = 1;
    }

    std::size_t threads() const { return threads_; }
    std::size_t group() const { return group_; }
    Clock now(std::size_t thread) const { return seen_by(thread)[thread % group_]; }
    /// What a thread has learnt of those of its group, by their places in it.
    const Clock* seen_by(std::size_t thread) const { return table_.data() + thread * group_; }

    /// Whether what `thread` did at count `clock` is ordered before what `observer` does now.
    bool ordered(std::size_t thread, Clock clock, std::size_t observer) const {
        return thread / group_ == observer / group_ && seen_by(observer)[thread % group_] >= clock;
    }

    /// Publish all that `thread` did and knows so far into `into`; what it does next is not part of it.
    void release(std::size_t thread, std::vector<Clock>& into) {
        const Clock* known = row(thread);
        into.resize(group_);
        for (std::size_t i = 0; i < group_; ++i) into[i] = std::max(into[i], known[i]);
        ++own(thread);
    }
    /// What `thread` does next comes after what it did.
    void advance(std::size_t thread) { ++own(thread); }
    /// Learn all that was published into `from`, by threads of the same group.
    void acquire(std::size_t thread, const std::vector<Clock>& from) {
        Clock* known = row(thread);
        for (std::size_t i = 0; i < from.size(); ++i) known[i] = std::max(known[i], from[i]);
    }
    /// The same for a thread that has itself published all that it knew into `from`, and has learnt nothing since.
    void rejoin(std::size_t thread, const std::vector<Clock>& from) {
        const Clock count = own(thread);
        std::copy(from.begin(), from.end(), row(thread));
        own(thread) = count;
    }

  private:
    Clock* row(std::size_t thread) { return table_.data() + thread * group_; }
    Clock& own(std::size_t thread) { return row(thread)[thread % group_]; }
    std::size_t threads_, group_;
    std::vector<Clock> table_;
};

}  // namespace tilesmith::emulate
