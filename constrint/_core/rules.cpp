// What constraints over many variables say of their bounds together; see rules.py.
#include <algorithm>

#include "state.hpp"

namespace constrint {

bool State::apply(int number) {
    const Rule& rule = rules_[number];
    reviser_ = static_cast<int>(codes.size()) + number;
    explained_ = false;
    size_t count = rule.variables.size();
    within_.resize(count);
    for (size_t i = 0; i < count; ++i) {
        int v = rule.variables[i];
        within_[i] = {low[v] + rule.offsets[i], high[v] + rule.offsets[i]};
    }
    left_ = within_;
    if (!(rule.durations.empty() ? differ(rule) : timetable(rule))) return false;
    for (size_t i = 0; i < count; ++i) {
        if (left_[i].empty()) return false;
        if (!restrict(rule.variables[i], left_[i].low - rule.offsets[i], left_[i].high - rule.offsets[i])) return false;
    }
    return true;
}

bool State::differ(const Rule& rule) {
    size_t count = rule.variables.size();
    by_end_.resize(count);
    for (size_t i = 0; i < count; ++i) by_end_[i] = static_cast<int>(i);
    std::sort(by_end_.begin(), by_end_.end(), [&](int i, int j) { return within_[i].high < within_[j].high; });
    for (size_t k = 0; k < count; ++k) {
        int64_t first = within_[k].low;
        if (std::any_of(within_.begin(), within_.begin() + k, [&](const Bounds& b) { return b.low == first; })) continue;
        int64_t inside = 0;
        for (int i : by_end_) {
            if (within_[i].low < first) continue;
            ++inside;
            int64_t last = within_[i].high, room = last - first + 1;
            if (inside > room) return false;
            if (inside < room) continue;
            for (size_t j = 0; j < count; ++j) {
                const Bounds& b = within_[j];
                if (first <= b.low && b.high <= last) continue;
                if (first <= b.low && b.low <= last) left_[j].low = std::max(left_[j].low, last + 1);
                if (first <= b.high && b.high <= last) left_[j].high = std::min(left_[j].high, first - 1);
            }
        }
    }
    return true;
}

bool State::timetable(const Rule& rule) {
    size_t count = rule.variables.size();
    // What a task surely runs through: from its latest start to its earliest end.
    auto part = [&](size_t i) { return Bounds{within_[i].high, within_[i].low + rule.durations[i]}; };
    std::vector<int64_t> moments;
    for (size_t i = 0; i < count; ++i) {
        if (rule.demands[i] > rule.capacity) return false;
        Bounds own = part(i);
        if (own.low < own.high) moments.insert(moments.end(), {own.low, own.high});
    }
    std::sort(moments.begin(), moments.end());
    moments.erase(std::unique(moments.begin(), moments.end()), moments.end());
    struct Step {
        int64_t begin, end, height;
    };
    std::vector<Step> steps;
    for (size_t m = 0; m + 1 < moments.size(); ++m) {
        Step step{moments[m], moments[m + 1], 0};
        for (size_t i = 0; i < count; ++i)
            if (part(i).low <= step.begin && step.end <= part(i).high) step.height += rule.demands[i];
        if (step.height > rule.capacity) return false;
        if (step.height) steps.push_back(step);
    }
    for (size_t i = 0; i < count; ++i) {
        Bounds own = part(i), &start = left_[i];
        // No room beside what runs in the step; within its own part its demand is counted already.
        auto full = [&](const Step& step) {
            return step.height + rule.demands[i] > rule.capacity && !(own.low <= step.begin && step.end <= own.high);
        };
        for (const Step& step : steps)
            if (step.begin < start.low + rule.durations[i] && start.low < step.end && full(step)) start.low = step.end;
        for (size_t m = steps.size(); m-- > 0;)
            if (steps[m].begin < start.high + rule.durations[i] && start.high < steps[m].end && full(steps[m]))
                start.high = steps[m].begin - rule.durations[i];
    }
    return true;
}

}  // namespace constrint
