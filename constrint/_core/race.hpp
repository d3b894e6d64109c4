// Two engines on one problem: the one that this thread runs stops when the other was first, and wakes the other when it
// has not answered after a moment.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>

namespace constrint {

class Race {
public:
    // wake is called once, when so many seconds have passed.
    Race(double seconds, std::function<void()> wake)
        : wake_(std::move(wake)),
          start_(std::chrono::steady_clock::now() + std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6))) {}

    void stop() { stopped_.store(true, std::memory_order_relaxed); }

    // Whether to stop.
    bool look() {
        if (!woken_ && std::chrono::steady_clock::now() >= start_) {
            woken_ = true;
            wake_();
        }
        return stopped_.load(std::memory_order_relaxed);
    }

    // What this thread runs in; null: nothing.
    static Race*& current() {
        static thread_local Race* race = nullptr;
        return race;
    }

private:
    std::atomic<bool> stopped_{false};
    bool woken_ = false;  // only the thread that runs in it looks
    std::function<void()> wake_;
    std::chrono::steady_clock::time_point start_;
};

// Whether the race that this thread runs in is over.
inline bool race_over() {
    Race* race = Race::current();
    return race && race->look();
}

}  // namespace constrint
