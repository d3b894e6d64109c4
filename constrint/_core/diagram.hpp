// Solution sets as layered diagrams: the twin of diagram.py, which explains them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <vector>

#include "layers.hpp"
#include "race.hpp"

namespace constrint {

using Total = unsigned __int128;

struct TooLarge : std::runtime_error {
    TooLarge() : std::runtime_error("building took more steps than allowed") {}
};
struct DiagramOverflow : std::runtime_error {
    DiagramOverflow() : std::runtime_error("the count has more than 128 bits") {}
};
struct DiagramTimeLimit : std::runtime_error {
    DiagramTimeLimit() : std::runtime_error("the time limit passed") {}
};

// Stops long work: throws after a time limit (seconds; negative: none), and lets Ctrl-C through now and then.
class Watch {
public:
    Watch(double seconds, std::function<void()> interrupt);
    void tick() {
        if (++ticks_ % 1024 == 0) look();
    }

private:
    void look();
    std::function<void()> interrupt_;
    uint64_t ticks_ = 0;
    bool limited_;
    std::chrono::steady_clock::time_point deadline_;
};

// The values of a variable: listed, or low, low + step, ... where values is empty.
struct Choices {
    std::vector<int64_t> values;
    int64_t low, step;
    uint32_t count;
    int64_t operator[](uint32_t i) const { return values.empty() ? low + step * i : values[i]; }
    // The position of a value, or count if it is none of them.
    uint32_t find(int64_t value) const;
};

// Positions start .. stop - 1 of a domain, and the node of the next layer that they lead to.
struct Run {
    uint32_t start, stop;
    int32_t child;
    bool operator==(const Run& other) const {
        return start == other.start && stop == other.stop && child == other.child;
    }
};

struct Layer {
    std::vector<size_t> begin{0};  // node n owns runs begin[n] .. begin[n + 1] - 1
    std::vector<Run> runs;
    std::vector<Total> counts;
    size_t size() const { return begin.size() - 1; }
};

// Where solutions first .. first + count - 1 are written: a column a layer, of signed integers of so many bytes. values:
// what is written in place of each position of a layer's domain; its value where there are none. All must fit.
struct Columns {
    std::vector<void*> places;
    size_t bytes = 8;
    uint64_t first = 0, count = 0;
    std::vector<std::vector<int64_t>> values;
};

class Diagram {
public:
    // limit: steps; TooLarge beyond it.
    Diagram(std::vector<Layers> constraints, std::vector<Choices> domains, uint64_t limit, Watch& watch);

    // As layers() and root() of another gave it; std::invalid_argument for what no diagram gives.
    Diagram(std::vector<Choices> domains, std::vector<Layer> layers, int32_t root, uint64_t steps);

    const std::vector<Layer>& layers() const { return layers_; }
    int32_t root() const { return root_; }
    Total total() const { return root_ < 0 ? 0 : layers_.front().counts[root_]; }
    uint64_t steps() const { return steps_; }
    size_t size() const;
    // Drop the values that no solution has, of a range those beyond the least and the largest; whether there were any.
    bool trim();
    // Write the solutions of these indices, row by row.
    void decode(const std::vector<Total>& indices, int64_t* rows, Watch& watch) const;
    // The index of a solution; false for anything else.
    bool index(const std::vector<int64_t>& values, Total& result) const;
    // Write solutions into the first places of each column.
    void fill(const Columns& table, Watch& watch) const;
    // The least sum of costs[d][position] over a solution (no costs of a layer: all 0), and of the solutions that have
    // it the first: layer order[i] at its first value, or descending, its last. There must be a solution, costs must
    // sum within 62 bits, and order must name every layer.
    int64_t best(const std::vector<std::vector<int64_t>>& costs, const std::vector<size_t>& order,
                 const std::vector<int>& descending, std::vector<int64_t>& values, Watch& watch) const;
    size_t width() const { return domains_.size(); }
    // How many values the variable of a layer has.
    size_t choices(size_t d) const { return domains_[d].count; }
    const std::vector<Choices>& domains() const { return domains_; }

private:
    struct States;
    void expand(size_t d, const int64_t* slots, States& next, Watch& watch);
    void range(size_t d, uint32_t start, uint32_t stop, States& next, Watch& watch);
    void single(size_t d, uint32_t position, States& next, Watch& watch);
    void reach(size_t d, uint32_t start, uint32_t stop, States& next);
    void step(Watch& watch);
    void reduce(std::vector<Layer>& raw, Watch& watch);
    Total below(size_t d, int32_t node) const { return d < layers_.size() ? layers_[d].counts[node] : 1; }

    std::vector<Layers> constraints_;
    std::vector<Choices> domains_;
    std::vector<Layer> layers_;
    int32_t root_ = -1;
    uint64_t steps_ = 0, limit_ = 0;

    // Of the state being expanded: constraints that its variable may still break; slots of the next state; its runs.
    std::vector<int> alive_;
    std::vector<std::vector<size_t>> offset_;  // [depth][constraint]: where its slots lie
    std::vector<size_t> width_;
    const int64_t* parent_ = nullptr;
    std::vector<int64_t> inherited_, key_;
    std::vector<int64_t> values_, scratch_;  // that a table leaves the variable
    std::vector<Run>* runs_ = nullptr;
    size_t first_run_ = 0;
};

// Write each of ``count`` values ``inner`` times into a column, and repeat that until ``length`` places are written.
// Both hold signed integers of so many bytes.
void spread(const void* values, uint64_t count, uint64_t inner, void* column, uint64_t length, size_t bytes,
            Watch& watch);

}  // namespace constrint
