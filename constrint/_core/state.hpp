// Current domains of a program's variables with propagation to a fixpoint: the twin of propagate.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

class State {
public:
    State(std::vector<Domain> domains, std::vector<Code> codes);

    // Schedule and propagate everything; false where a constraint cannot hold. permanent: the number of the constraint
    // that is never marked entailed, since the bound in it moves (-1: none). Undoes to an earlier root first.
    bool start(int permanent);
    bool propagate();
    bool restrict(int v, int64_t low, int64_t high);
    void schedule(int number);
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

    bool revise(int number);
    bool filter(int number, int v);
    bool project(int number);
    bool rows(const Code& code, const Table& table);
    bool strike(const Code& code, int node, int other);
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

    std::vector<uint64_t> mask_, saved_, scratch_;
    std::vector<std::vector<int>> watch_;
    std::vector<Change> trail_;
    std::vector<int> queue_;
    std::vector<char> queued_, entailed_, required_, wanted_;
    std::vector<Span> spans_;
    std::vector<Bounds> bounds_;
    std::vector<int64_t> point_, row_;
    std::vector<char> undefined_;
    int permanent_ = -1;
};

}  // namespace constrint
