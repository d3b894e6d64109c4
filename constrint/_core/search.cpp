#include "search.hpp"

#include <algorithm>

namespace constrint {

namespace {
constexpr uint64_t SPLIT_ABOVE = 64;       // as in search.py
constexpr size_t MEMORY_LIMIT = 2'000'000;  // remembered subtrees
}  // namespace

Search::Search(State state, Plan plan, std::function<void()> interrupt)
    : state_(std::move(state)), plan_(std::move(plan)), clock_(std::move(interrupt)) {}

// Skip decided variables; returns whether everything before ``depth`` is decided and nothing at it was split.
bool Search::advance(size_t& depth, bool fresh) {
    while (depth < plan_.order.size() && state_.decided(plan_.order[depth])) ++depth, fresh = true;
    return fresh;
}

bool Search::key(size_t depth, bool fresh, Key& key) const {
    if (!fresh || !plan_.frontier[depth]) return false;
    key.push_back(static_cast<int64_t>(depth));
    for (int v : *plan_.frontier[depth]) key.push_back(state_.low[v]);
    return true;
}

std::vector<Bounds> branches(const State& state, int v, bool descending) {
    std::vector<Bounds> result;
    if (!state.domains[v].listed() && state.size(v) > SPLIT_ABOVE) {
        int64_t middle = state.low[v] + (state.high[v] - state.low[v]) / 2;
        result = {{state.low[v], middle}, {middle + 1, state.high[v]}};
    } else {
        for (int64_t x : state.current(v)) result.push_back({x, x});
    }
    if (descending) std::reverse(result.begin(), result.end());
    return result;
}

std::vector<Values> Search::solutions(const std::optional<Values>& after, size_t limit, double seconds) {
    clock_.begin(seconds);
    state_.heed(&clock_);
    after_ = after;
    limit_ = limit;
    found_.clear();
    if (state_.start(-1)) enumerate(0, true, after_.has_value());
    return std::move(found_);
}

// resume: the path so far is that of the solution to continue after. Returns whether a solution lies below.
bool Search::enumerate(size_t depth, bool fresh, bool resume) {
    fresh = advance(depth, fresh);
    if (depth == plan_.order.size()) {
        if (!resume) found_.push_back(state_.low);
        return true;
    }
    Key here;
    bool remember = key(depth, fresh, here);
    if (remember && dead_.count(here)) return false;
    int v = plan_.order[depth];
    bool any = resume;  // what was already listed lies below
    bool reached = !resume;
    for (Bounds branch : branches(state_, plan_.order[depth], plan_.descending[depth])) {
        bool resume_below = false;
        if (!reached) {
            int64_t from = (*after_)[v];
            resume_below = reached = branch.low <= from && from <= branch.high;
            if (!reached) continue;
        }
        clock_.tick();
        size_t mark = state_.mark();
        if (state_.restrict(v, branch.low, branch.high) && state_.propagate()) any |= enumerate(depth, false, resume_below);
        state_.undo(mark);
        if (found_.size() >= limit_) return true;
    }
    if (!any && remember && dead_.size() < MEMORY_LIMIT) dead_.insert(std::move(here));
    return any;
}

std::pair<std::vector<uint64_t>, Values> Search::probe(const std::vector<double>& draws, double seconds) {
    clock_.begin(seconds);
    state_.heed(&clock_);
    if (rooted_ < 0) rooted_ = state_.start(-1);
    std::pair<std::vector<uint64_t>, Values> result;
    if (!rooted_) return result;
    size_t mark = state_.mark();
    bool possible = true;
    for (double draw : draws) {
        int v = -1;
        for (int u : plan_.order)
            if (!state_.decided(u) && (v < 0 || state_.size(u) < state_.size(v))) v = u;
        if (v < 0) break;
        uint64_t size = state_.size(v), place = std::min<uint64_t>(static_cast<uint64_t>(draw * size), size - 1);
        result.first.push_back(size);
        const Domain& domain = state_.domains[v];
        int64_t x = domain.listed() ? state_.current(v)[place]
                                    : state_.low[v] + static_cast<int64_t>(place) * domain.step;
        clock_.tick();
        possible = state_.restrict(v, x, x) && state_.propagate();
        if (!possible) break;
    }
    if (possible) result.second = state_.low;
    state_.undo(mark);
    return result;
}

Count Search::count(double seconds) {
    clock_.begin(seconds);
    state_.heed(&clock_);
    known_.clear();
    return state_.start(-1) ? tally(0, true) : 0;
}

Count Search::tally(size_t depth, bool fresh) {
    fresh = advance(depth, fresh);
    Count total = 1;
    if (state_.active == 0) {
        for (size_t i = depth; i < plan_.order.size(); ++i)
            if (__builtin_mul_overflow(total, static_cast<Count>(state_.size(plan_.order[i])), &total))
                throw CountOverflow{};
        return total;
    }
    Key here;
    bool remember = key(depth, fresh, here);
    if (remember) {
        auto known = known_.find(here);
        if (known != known_.end()) return known->second;
    }
    int v = plan_.order[depth];
    total = 0;
    for (Bounds branch : branches(state_, plan_.order[depth], plan_.descending[depth])) {
        clock_.tick();
        size_t mark = state_.mark();
        if (state_.restrict(v, branch.low, branch.high) && state_.propagate() &&
            __builtin_add_overflow(total, tally(depth, false), &total))
            throw CountOverflow{};
        state_.undo(mark);
    }
    if (remember && known_.size() < MEMORY_LIMIT) known_.emplace(std::move(here), total);
    return total;
}

Search::Best Search::best(double seconds) {
    clock_.begin(seconds);
    state_.heed(&clock_);
    dead_.clear();
    best_ = {};
    best_.finished = true;
    try {
        if (state_.start(static_cast<int>(state_.codes.size()) - 1)) improve(0, true);
    } catch (const TimeLimit&) {
        best_.finished = false;
    }
    return best_;
}

void Search::improve(size_t depth, bool fresh) {
    fresh = advance(depth, fresh);
    int objective = static_cast<int>(state_.codes.size()) - 1;
    if (depth == plan_.order.size()) {
        // Nodes end with: objective, constant, objective <= constant.
        Code& bounded = state_.codes.back();
        best_.value = state_.value(objective, bounded.ops.size() - 3);
        best_.solution = state_.low;
        bounded.a[bounded.ops.size() - 2] = *best_.value - 1;
        return;
    }
    Key here;
    bool remember = key(depth, fresh, here);
    if (remember && dead_.count(here)) return;
    int v = plan_.order[depth];
    for (Bounds branch : branches(state_, plan_.order[depth], plan_.descending[depth])) {
        clock_.tick();
        size_t mark = state_.mark();
        if (state_.restrict(v, branch.low, branch.high)) {
            state_.schedule(objective);
            if (state_.propagate()) improve(depth, false);
        }
        state_.undo(mark);
    }
    // Every improvement below was found, and the bound only tightens: nothing is left here.
    if (remember && dead_.size() < MEMORY_LIMIT) dead_.insert(std::move(here));
}

}  // namespace constrint
