// Whether there is a solution, and the first in order of preference: the twin of prove.py, which explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "clock.hpp"
#include "state.hpp"

namespace constrint {

class Prover {
public:
    // order: the variables by importance; descending: which of them prefer their largest value.
    Prover(State state, std::vector<int> order, const std::vector<int>& descending, std::function<void()> interrupt);

    // seconds: the time limit of one call, or a negative number for none. Each throws TimeLimit when it passes, and TooWide.

    // Propagate at the root and keep what changes; false where that alone proves that there is no solution.
    bool fixpoint(double seconds);
    // One solution, all variables by position, or nothing.
    std::optional<std::vector<int64_t>> any(double seconds);
    // The first solution in order of preference.
    std::optional<std::vector<int64_t>> first(double seconds);
    // After "nothing": the numbers of constraints that cannot hold together. May hold more than needed.
    std::vector<int> conflict() const;

    // The constraints that shaped the domain of v.
    std::vector<int> why(int v) const { return numbers(state_.why(v)); }
    const State& state() const { return state_; }

    // Of each variable, how often it was part of a failure; what an earlier call learnt may be put here.
    std::vector<double> weight;

private:
    bool prove();
    bool descend(int level);
    int choose();
    void bump_weight(int number);
    void fix_bound(int v, int64_t low, int64_t high);
    std::vector<int> numbers(const Reasons& reasons) const;

    State state_;
    std::vector<int> order_;
    std::vector<char> descending_;  // by position of the variable
    Clock clock_;
    std::vector<int> seen_;  // the node at which choose() met each variable
    std::vector<char> given_;  // whether an equation gives the variable, a range, as a function of others
    int node_ = 0;
    Reasons conflict_;
    std::vector<int64_t> witness_;
    double failures_ = 0, patience_ = 0;
    bool restart_ = false;
};

}  // namespace constrint
