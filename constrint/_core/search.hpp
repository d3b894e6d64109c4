// Depth-first search over propagated domains: the twin of search.py, which explains the frontier.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "clock.hpp"
#include "state.hpp"

namespace constrint {

using Values = std::vector<int64_t>;
using Count = unsigned __int128;

struct CountOverflow : std::runtime_error {
    CountOverflow() : std::runtime_error("the count has more than 128 bits") {}
};

struct ValuesHash {
    size_t operator()(const Values& values) const {
        uint64_t hash = 0x9e3779b97f4a7c15u;
        for (int64_t value : values) {
            hash = (hash ^ static_cast<uint64_t>(value)) * 0xff51afd7ed558ccdu;
            hash ^= hash >> 32;
        }
        return hash;
    }
};

// The order in which variables are decided, which of them take their largest value first, and for each depth the
// frontier (nullopt where remembering cannot pay).
struct Plan {
    std::vector<int> order;
    std::vector<int> descending;
    std::vector<std::optional<std::vector<int>>> frontier;
};

// The parts of a variable's domain to decide between, in order: each value, or the halves of a long range.
std::vector<Bounds> branches(const State& state, int v, bool descending);

class Search {
public:
    // interrupt is called now and then; it throws to stop the search.
    Search(State state, Plan plan, std::function<void()> interrupt);

    // seconds: the time limit of one call, or a negative number for none. Each throws TimeLimit when it passes.

    // Up to ``limit`` solutions, all variables by position, that come after ``after`` in order.
    std::vector<Values> solutions(const std::optional<Values>& after, size_t limit, double seconds);
    // One way down at random; see search.py. draws: a number in [0, 1) for each variable of the plan. Sizes, and the
    // solution (empty: the way ended without one).
    std::pair<std::vector<uint64_t>, Values> probe(const std::vector<double>& draws, double seconds);
    // The number of solutions over the plan's variables; CountOverflow beyond 128 bits.
    Count count(double seconds);

    struct Best {
        std::optional<int64_t> value;
        Values solution;
        bool finished;
    };
    // Minimise under the last constraint, which reads objective <= constant; the constant moves.
    Best best(double seconds);

private:
    using Key = Values;

    bool advance(size_t& depth, bool fresh);
    bool key(size_t depth, bool fresh, Key& key) const;
    bool enumerate(size_t depth, bool fresh, bool resume);
    Count tally(size_t depth, bool fresh);
    void improve(size_t depth, bool fresh);

    State state_;
    Plan plan_;
    Clock clock_;
    std::unordered_set<Key, ValuesHash> dead_;
    std::unordered_map<Key, Count, ValuesHash> known_;
    std::optional<Values> after_;
    std::vector<Values> found_;
    size_t limit_ = 0;
    int rooted_ = -1;  // whether the state is propagated for probes: 0 where that failed
    Best best_{};
};

}  // namespace constrint
