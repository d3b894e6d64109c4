// When a search must stop: its time limit, and Ctrl-C.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>

#include "race.hpp"

namespace constrint {

struct TimeLimit : std::runtime_error {
    TimeLimit() : std::runtime_error("the time limit passed") {}
};

class Clock {
public:
    // interrupt is called now and then; it throws to stop the search.
    explicit Clock(std::function<void()> interrupt) : interrupt_(std::move(interrupt)) {}

    // seconds: from now, or a negative number for no limit.
    void begin(double seconds) {
        limited_ = seconds >= 0;
        ticks_ = work_ = 0;
        if (limited_)
            deadline_ = std::chrono::steady_clock::now() +
                        std::chrono::microseconds(static_cast<int64_t>(std::min(seconds, 1e9) * 1e6));
    }

    // Called at each node; throws TimeLimit when the time has passed.
    void tick() {
        ++ticks_;
        if (ticks_ % 16 == 1 && ((limited_ && std::chrono::steady_clock::now() > deadline_) || race_over()))
            throw TimeLimit{};
        if (ticks_ % 4096 == 0) interrupt_();
    }

    // Called within a node, for each constraint that is revised: as tick, but looks more seldom.
    void work() {
        ++work_;
        if (work_ % 64 == 1 && ((limited_ && std::chrono::steady_clock::now() > deadline_) || race_over()))
            throw TimeLimit{};
        if (work_ % (1 << 20) == 0) interrupt_();
    }

private:
    std::function<void()> interrupt_;
    uint64_t ticks_ = 0, work_ = 0;
    bool limited_ = false;
    std::chrono::steady_clock::time_point deadline_;
};

}  // namespace constrint
