// One constraint while variables are decided one after another: the twin of layers.py, which explains the slots.
#pragma once

#include <cstdint>
#include <vector>

#include "intervals.hpp"

namespace constrint {

// Stands for "undefined"; no number reaches it.
constexpr int64_t UNDEFINED = INT64_MIN;

// A node of a constraint's tree; see residual.py. Nodes lie in postorder, the root last.
struct Term {
    Op op;
    std::vector<int> args;
    int64_t start;  // of a VAR, the depth at which it is decided
    std::vector<int64_t> coefs;
    std::vector<int64_t> rows;  // sorted, flattened; the columns in the order in which they are decided
    Span span;

    bool gathers() const { return op == ADD || op == MUL || op == MIN || op == MAX || op == AND || op == OR; }
    bool condition() const { return op >= TRUE_; }
};

class Layers {
public:
    enum Outcome { FAILS, HOLDS, OPEN };

    explicit Layers(std::vector<Term> nodes);

    int first_depth() const { return first_.back(); }
    int last_depth() const { return last_.back(); }
    bool names(int d) const { return !touched_[d].empty(); }
    // How many numbers are kept before depth d.
    size_t width(int d) const { return d < static_cast<int>(slots_.size()) ? slots_[d].size() : 0; }

    void load(int d, const int64_t* slots);
    // Decide the variable of depth d; OPEN writes the slots before the next depth.
    Outcome step(int d, int64_t x, int64_t* slots);
    // Where the constraint is a table whose next column is the variable of depth d: the values that its rows leave it,
    // ascending; false: any may be possible.
    bool support(int d, std::vector<int64_t>& values) const;
    // The bits of the constraint where the variable of depth d is anywhere in low .. high.
    int over(int d, int64_t low, int64_t high);

private:
    bool kept(int n, int d, int parent) const;
    bool is_kept(int n, int d) const;
    int64_t apply(int n) const;
    bool member(int n) const;
    int bits(int d, const std::vector<int64_t>& value, const Bounds* variable);
    Span partial(int n, int d, int64_t gathered) const;
    Span bound(const Term& term) const;
    int table_bits(const Term& term) const;
    bool normalise(int d);
    void divide_sum(int d, int n);
    bool reduce_dividend(int d, int divisor, int dividend);

    std::vector<Term> nodes_;
    std::vector<int> first_, last_;
    std::vector<std::vector<int>> slots_, touched_;
    std::vector<int64_t> base_, value_;
    std::vector<Span> spans_;
};

}  // namespace constrint
