// Current domains of a program's variables with propagation to a fixpoint: the twin of propagate.py.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "clock.hpp"
#include "intervals.hpp"

namespace constrint {

struct Table {
    std::vector<int> operands;
    std::vector<int64_t> rows;  // sorted, flattened
    size_t width() const { return operands.size(); }
    size_t count() const { return rows.size() / operands.size(); }
    bool contains(const int64_t* row) const;
};

// One constraint as postorder code; see program.py.
struct Code {
    std::vector<Op> ops;
    std::vector<int64_t> a;
    std::vector<int> b;
    std::vector<Table> tables;
    std::vector<int> variables;
};

// A domain: listed values, or the range low, low + step, ..., high where values is empty.
struct Domain {
    std::vector<int64_t> values;
    int64_t low, high, step;
    size_t first_word;  // of its bit mask in State::mask
    bool listed() const { return !values.empty(); }
    size_t words() const { return (values.size() + 63) / 64; }
};

// What follows from constraints over many variables at once, for propagation alone; see rules.py. durations is empty
// where the variables, each plus its offset, all differ; else they are the starts of tasks.
struct Rule {
    std::vector<int> variables;
    std::vector<int64_t> offsets, durations, demands;
    int64_t capacity;
    std::vector<int> why;  // the problem's constraints that say so
};

// Numbers of a wide program (see native.py) turned out to be too large to compare in 64 bits.
struct TooWide : std::runtime_error {
    TooWide() : std::runtime_error("a number has more than 62 bits") {}
};

// A set of reasons: bits of constraints (the problem's, not the codes split from them), then of decision levels.
using Reasons = std::vector<uint64_t>;

class State {
public:
    // Decisions deeper than this share the last level's bit, which is never taken back.
    static constexpr size_t LEVELS = 128;

    State(std::vector<Domain> domains, std::vector<Code> codes, std::vector<Rule> rules);

    // Schedule and propagate everything; false where a constraint cannot hold. permanent: the number of the constraint
    // that is never marked entailed, since the bound in it moves (-1: none). Undoes to an earlier root first.
    bool start(int permanent);
    // Throws TimeLimit when the clock says so.
    bool propagate();
    // The clock that ends long propagations; it must live as long as it is used (nullptr: none).
    void heed(Clock* clock) { clock_ = clock; }
    bool restrict(int v, int64_t low, int64_t high);
    void schedule(int number);

    // From now on keep, for each variable, the reasons of its present domain. sources: how many constraints the
    // problem has; source: that of each code; initial: those that shaped each variable's first domain.
    void track(size_t sources, std::vector<int> source, const std::vector<std::vector<int>>& initial);
    // restrict as a decision of that level (-1: as a fact).
    bool decide(int v, int64_t low, int64_t high, int level);
    size_t level_bit(int level) const { return sources_ + std::min<size_t>(level, LEVELS - 1); }
    Reasons why(int v) const;
    // After propagate failed: the constraint that failed (a rule: numbered after the codes), and the reasons.
    int failed() const { return reviser_; }
    const std::vector<int>& scope(int number) const {
        size_t count = codes.size();
        return static_cast<size_t>(number) < count ? codes[number].variables : rules_[number - count].variables;
    }
    Reasons failure() const { return explain(reviser_); }
    size_t sources() const { return sources_; }
    bool entailed(int number) const { return entailed_[number]; }
    size_t mark() const { return trail_.size(); }
    void undo(size_t mark);

    bool decided(int v) const { return low[v] == high[v]; }
    uint64_t size(int v) const;
    std::vector<int64_t> current(int v) const;
    // The value of a node of a constraint whose variables are all decided.
    int64_t value(int number, size_t node);

    std::vector<Domain> domains;
    std::vector<Code> codes;
    std::vector<int64_t> low, high;
    int active = 0;

private:
    struct Change {
        int v;  // or -number - 1 of a constraint marked entailed
        int64_t low, high;
        size_t words;  // where its old mask lies in saved_
    };

    bool revise_all();
    bool apply(int rule);
    bool differ(const Rule& rule);
    bool timetable(const Rule& rule);
    bool revise(int number);
    bool filter(int number, int v);
    bool project(int number);
    bool rows(const Code& code, const Table& table);
    bool remove_value(const Code& code, int node, int other);
    bool keep_divisors(int v, int64_t number);
    bool keep(int v, const std::vector<uint64_t>& mask);
    bool all_decided(int number) const;
    bool test(const Code& code);
    void forward(const Code& code);
    int bits(const Code& code, size_t node) const;
    void entail(int number);
    void save(int v);
    void changed(int v);
    bool want(int node, Bounds bounds);
    void refresh(int v);  // bounds from the mask
    Reasons explain(int number) const;  // of what a revision changes

    std::vector<uint64_t> mask_, saved_, scratch_;
    std::vector<std::vector<int>> watch_;
    std::vector<Change> trail_;
    std::vector<int> queue_;
    std::vector<char> queued_, entailed_, required_, wanted_;
    std::vector<Rule> rules_;
    std::vector<std::vector<int>> ruled_;  // the rules of each variable
    std::vector<int> waiting_;
    std::vector<char> waits_;
    std::vector<Bounds> within_, left_;  // of a rule's numbers
    std::vector<int> by_end_;
    std::vector<Span> spans_;
    std::vector<Bounds> bounds_;
    std::vector<int64_t> point_, row_;
    std::vector<int64_t> multiple_;  // a number other than 0 that each node divides; 0: none known
    std::vector<char> undefined_;
    int permanent_ = -1;
    Clock* clock_ = nullptr;

    size_t width_ = 0, sources_ = 0;  // words of a set of reasons, 0 while they are not kept
    std::vector<int> source_;
    std::vector<uint64_t> why_;
    Reasons reason_;  // of the change being made
    int reviser_ = -1;  // the constraint being revised, -1: a decision
    bool explained_ = false;  // whether reason_ is that of reviser_
};

}  // namespace constrint
