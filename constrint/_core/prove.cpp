#include "prove.hpp"

#include <cmath>

#include "search.hpp"

namespace constrint {

namespace {
// As in prove.py.
constexpr int64_t FEW = 8;
constexpr double FIRST_PATIENCE = 1000, GROWTH = 1.5, GIVEN = 100;

bool has(const Reasons& reasons, size_t bit) { return reasons[bit / 64] >> (bit % 64) & 1; }
}  // namespace

Prover::Prover(State state, std::vector<int> order, const std::vector<int>& descending,
               std::function<void()> interrupt)
    : weight(state.domains.size(), 1.0), state_(std::move(state)), order_(std::move(order)),
      descending_(state_.domains.size()), clock_(std::move(interrupt)), seen_(state_.domains.size(), -1),
      given_(state_.domains.size()) {
    for (size_t i = 0; i < order_.size(); ++i) descending_[order_[i]] = static_cast<char>(descending[i]);
    for (const Code& code : state_.codes)
        for (int64_t side : {code.a.back(), static_cast<int64_t>(code.b.back())})
            if (code.ops.back() == EQ && code.ops[side] == VAR && !state_.domains[code.a[side]].listed())
                given_[code.a[side]] = 1;
}

bool Prover::fixpoint(double seconds) {
    clock_.begin(seconds);
    state_.heed(&clock_);
    if (state_.start(-1)) return true;
    conflict_ = state_.failure();
    return false;
}

std::optional<std::vector<int64_t>> Prover::any(double seconds) {
    if (!fixpoint(seconds) || !prove()) return std::nullopt;
    return witness_;
}

// Each variable in turn: while something better than the witness may exist, look for it.
std::optional<std::vector<int64_t>> Prover::first(double seconds) {
    if (!fixpoint(seconds) || !prove()) return std::nullopt;
    for (int v : order_) {
        bool down = descending_[v];
        while (!state_.decided(v)) {
            int64_t best = down ? state_.high[v] : state_.low[v], known = witness_[v];
            if (known == best) {
                fix_bound(v, best, best);
                break;
            }
            int64_t gap = down ? best - known : known - best, reach = gap > FEW ? gap / 2 : 0;
            Bounds better = down ? Bounds{best - reach, best} : Bounds{best, best + reach};
            size_t mark = state_.mark();
            bool found = state_.decide(v, better.low, better.high, -1) && state_.propagate() && prove();
            state_.undo(mark);
            if (found)
                down ? fix_bound(v, witness_[v], state_.high[v]) : fix_bound(v, state_.low[v], witness_[v]);
            else
                down ? fix_bound(v, state_.low[v], better.low - 1) : fix_bound(v, better.high + 1, state_.high[v]);
        }
    }
    return witness_;
}

// Narrow a variable for good, to bounds that the witness is within.
void Prover::fix_bound(int v, int64_t low, int64_t high) {
    state_.decide(v, low, high, -1);
    state_.propagate();
}

bool Prover::prove() {
    for (patience_ = FIRST_PATIENCE;; patience_ *= GROWTH) {
        failures_ = 0;
        restart_ = false;
        size_t mark = state_.mark();
        bool found = descend(0);
        state_.undo(mark);
        if (found || !restart_) return found;
    }
}

bool Prover::descend(int level) {
    if (state_.active == 0) {
        witness_ = state_.low;
        for (int v : order_)
            if (descending_[v]) witness_[v] = state_.high[v];
        return true;
    }
    int v = choose();
    size_t bit = state_.level_bit(level);
    Reasons all = state_.why(v);
    for (Bounds branch : branches(state_, v, descending_[v])) {
        clock_.tick();
        size_t mark = state_.mark();
        state_.decide(v, branch.low, branch.high, level);
        if (!state_.propagate()) {
            conflict_ = state_.failure();
            bump_weight(state_.failed());
        } else if (descend(level + 1)) {
            return true;
        }
        state_.undo(mark);
        // A conflict that this decision has no part in is one of every other value as well.
        if (restart_ || !has(conflict_, bit)) return false;
        for (size_t i = 0; i < all.size(); ++i) all[i] |= conflict_[i];
    }
    if (level < static_cast<int>(State::LEVELS) - 1) all[bit / 64] &= ~(uint64_t{1} << (bit % 64));
    conflict_ = std::move(all);
    return false;
}

// The variable with the fewest values for the failures it was part of.
int Prover::choose() {
    ++node_;
    int best = -1;
    double least = 0;
    for (size_t number = 0; number < state_.codes.size(); ++number) {
        if (state_.entailed(static_cast<int>(number))) continue;
        for (int v : state_.codes[number].variables) {
            if (seen_[v] == node_ || state_.decided(v)) continue;
            seen_[v] = node_;
            double score = std::log2(static_cast<double>(state_.size(v))) / weight[v];
            // Where the others are decided, so is a variable that an equation gives.
            if (given_[v]) score += GIVEN;
            if (best < 0 || score < least || (score == least && v < best)) best = v, least = score;
        }
    }
    if (best < 0) throw TooWide{};
    return best;
}

void Prover::bump_weight(int number) {
    for (int v : state_.scope(number))
        weight[v] += 1;
    restart_ = ++failures_ > patience_;
}

std::vector<int> Prover::conflict() const { return numbers(conflict_); }

std::vector<int> Prover::numbers(const Reasons& reasons) const {
    std::vector<int> result;
    for (size_t i = 0; i < state_.sources(); ++i)
        if (has(reasons, i)) result.push_back(static_cast<int>(i));
    return result;
}

}  // namespace constrint
