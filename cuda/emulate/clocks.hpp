// Vector clocks: which thread knows of which other's past.
//
// Each thread counts its own releases; its row holds, for every thread, the latest count it has learnt of through a
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

class Clocks {
  public:
    explicit Clocks(std::size_t threads) : threads_(threads), table_(threads * threads) { reset(); }

    void reset() {
        std::fill(table_.begin(), table_.end(), 0);
        for (std::size_t i = 0; i < threads_; ++i) row(i)[i] = 1;
    }
    std::size_t threads() const { return threads_; }
    Clock now(std::size_t thread) const { return table_[thread * threads_ + thread]; }
    const Clock* seen_by(std::size_t thread) const { return table_.data() + thread * threads_; }

    /// Whether what `thread` did at count `clock` is ordered before what `observer` does now.
    bool ordered(std::size_t thread, Clock clock, std::size_t observer) const {
        return seen_by(observer)[thread] >= clock;
    }

    /// Publish all that `thread` did and knows so far into `into`; what it does next is not part of it.
    void release(std::size_t thread, std::vector<Clock>& into) {
        const Clock* own = row(thread);
        into.resize(threads_);
        for (std::size_t i = 0; i < threads_; ++i) into[i] = std::max(into[i], own[i]);
        ++row(thread)[thread];
    }
    /// What `thread` does next comes after what it did.
    void advance(std::size_t thread) { ++row(thread)[thread]; }
    /// Learn all that was published into `from`.
    void acquire(std::size_t thread, const std::vector<Clock>& from) {
        Clock* own = row(thread);
        for (std::size_t i = 0; i < from.size(); ++i) own[i] = std::max(own[i], from[i]);
    }

  private:
    Clock* row(std::size_t thread) { return table_.data() + thread * threads_; }
    std::size_t threads_;
    std::vector<Clock> table_;
};

}  // namespace tilesmith::emulate
