#include "layers.hpp"

#include <algorithm>
#include <numeric>

namespace constrint {

namespace {

constexpr int NEVER_DECIDED = 1 << 30;

Span exact(int64_t value, bool condition) {
    if (condition) return {0, 0, value == UNDEFINED ? U : value ? T : F};
    return value == UNDEFINED ? NEVER : Span{value, value, 0};
}

// An operator that gathers, over what it has gathered and one more value.
int64_t combine(Op op, int64_t total, int64_t value) {
    if (op == AND) return total == 0 || value == 0 ? 0 : total == UNDEFINED || value == UNDEFINED ? UNDEFINED : 1;
    if (op == OR) return total == 1 || value == 1 ? 1 : total == UNDEFINED || value == UNDEFINED ? UNDEFINED : 0;
    if (total == UNDEFINED || value == UNDEFINED) return UNDEFINED;
    switch (op) {
        case ADD: return total + value;
        case MUL: return clamp(static_cast<__int128>(total) * value);  // see residual.py: fits
        case MIN: return std::min(total, value);
        default: return std::max(total, value);
    }
}

// The first of these sorted rows whose first ``prefix`` columns are not less than those numbers.
template <class Number>
size_t first_row(const std::vector<int64_t>& rows, size_t width, size_t prefix, Number number) {
    size_t low = 0, high = rows.size() / width;
    while (low < high) {
        size_t middle = (low + high) / 2, i = 0;
        while (i < prefix && rows[middle * width + i] == number(i)) ++i;
        if (i < prefix && rows[middle * width + i] < number(i))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

}  // namespace

Layers::Layers(std::vector<Term> nodes) : nodes_(std::move(nodes)) {
    int count = static_cast<int>(nodes_.size());
    std::vector<int> parent(count, -1);
    std::vector<std::vector<int>> depths(count);
    for (int n = 0; n < count; ++n) {
        if (nodes_[n].op == VAR) depths[n].push_back(static_cast<int>(nodes_[n].start));
        for (int arg : nodes_[n].args) {
            parent[arg] = n;
            depths[n].insert(depths[n].end(), depths[arg].begin(), depths[arg].end());
        }
        auto [low, high] = std::minmax_element(depths[n].begin(), depths[n].end());
        first_.push_back(depths[n].empty() ? NEVER_DECIDED : *low);
        last_.push_back(depths[n].empty() ? -1 : *high);
    }
    touched_.resize(last_depth() + 1);
    slots_.resize(last_depth() + 1);
    for (int d = 0; d <= last_depth(); ++d)
        for (int n = 0; n < count; ++n) {
            if (std::find(depths[n].begin(), depths[n].end(), d) != depths[n].end()) touched_[d].push_back(n);
            if (d > first_depth() && kept(n, d, parent[n])) slots_[d].push_back(n);
        }
    for (const Term& term : nodes_) base_.push_back(term.start);
    value_ = base_;
    spans_.resize(count);
}

bool Layers::kept(int n, int d, int parent) const {
    if (last_[n] >= d)
        return nodes_[n].gathers() && std::any_of(nodes_[n].args.begin(), nodes_[n].args.end(),
                                                  [&](int arg) { return 0 <= last_[arg] && last_[arg] < d; });
    return last_[n] >= 0 && last_[parent] >= d && !nodes_[parent].gathers();
}

bool Layers::is_kept(int n, int d) const {
    return std::find(slots_[d].begin(), slots_[d].end(), n) != slots_[d].end();
}

void Layers::load(int d, const int64_t* slots) {
    for (size_t n = 0; n < nodes_.size(); ++n) base_[n] = nodes_[n].start;
    for (int n : slots_[d]) base_[n] = *slots++;
    value_ = base_;
}

Layers::Outcome Layers::step(int d, int64_t x, int64_t* slots) {
    for (int n : slots_[d]) value_[n] = base_[n];
    for (int n : touched_[d]) {
        const Term& term = nodes_[n];
        if (term.op == VAR) {
            value_[n] = x;
        } else if (term.gathers()) {
            int64_t total = base_[n];
            for (size_t i = 0; i < term.args.size(); ++i) {
                int arg = term.args[i];
                if (last_[arg] != d) continue;
                int64_t part = value_[arg];
                if (term.op == ADD && part != UNDEFINED) part *= term.coefs[i];
                total = combine(term.op, total, part);
            }
            value_[n] = total;
        } else if (last_[n] == d) {
            value_[n] = apply(n);
        }
    }
    if (last_depth() == d) return value_.back() == 1 ? HOLDS : FAILS;
    int possible = bits(d + 1, value_, nullptr);
    if (possible == T) return HOLDS;
    if (!(possible & T) || !normalise(d + 1)) return FAILS;
    for (int n : slots_[d + 1]) *slots++ = value_[n];
    return OPEN;
}

bool Layers::support(int d, std::vector<int64_t>& values) const {
    const Term& term = nodes_.back();
    if (term.op != TABLE) return false;
    size_t at = 0, width = term.args.size();
    while (at < width && last_[term.args[at]] < d) ++at;
    if (at == width || nodes_[term.args[at]].op != VAR || last_[term.args[at]] != d) return false;
    values.clear();
    // No row holds UNDEFINED, so an undefined column leaves nothing.
    size_t row = first_row(term.rows, width, at, [&](size_t i) { return base_[term.args[i]]; }) * width;
    for (; row < term.rows.size(); row += width) {
        for (size_t i = 0; i < at; ++i)
            if (term.rows[row + i] != base_[term.args[i]]) return true;
        if (values.empty() || values.back() != term.rows[row + at]) values.push_back(term.rows[row + at]);
    }
    return true;
}

int Layers::over(int d, int64_t low, int64_t high) {
    Bounds variable{low, high};
    return bits(d, base_, &variable);
}

// The root's bits, the variables before depth d decided. variable: bounds of the variable at depth d.
int Layers::bits(int d, const std::vector<int64_t>& value, const Bounds* variable) {
    int reach = variable ? d : d - 1;
    for (size_t n = 0; n < nodes_.size(); ++n) {
        const Term& term = nodes_[n];
        if (last_[n] < d)
            spans_[n] = exact(value[n], term.condition());
        else if (first_[n] > reach)
            spans_[n] = term.span;
        else if (term.op == VAR)
            spans_[n] = {variable->low, variable->high, 0};
        else
            spans_[n] = term.gathers() ? partial(static_cast<int>(n), d, value[n]) : bound(term);
    }
    return spans_.back().undefined;
}

Span Layers::partial(int n, int d, int64_t gathered) const {
    const Term& term = nodes_[n];
    Span total = exact(gathered, term.condition());
    for (size_t i = 0; i < term.args.size(); ++i) {
        int arg = term.args[i];
        if (0 <= last_[arg] && last_[arg] < d) continue;
        Span span = spans_[arg];
        switch (term.op) {
            case AND: total.undefined = forward::conjunction(total.undefined, span.undefined); break;
            case OR: total.undefined = forward::disjunction(total.undefined, span.undefined); break;
            case ADD: {
                int64_t coef = term.coefs[i];
                total = forward::add(total, forward::multiply({coef, coef, 0}, span));
                break;
            }
            case MUL: total = forward::multiply(total, span); break;
            case MIN: total = forward::smaller(total, span); break;
            default: total = forward::larger(total, span); break;
        }
        // What is undefined has no bounds worth computing with.
        if (!term.condition() && total.undefined == 2) total = NEVER;
    }
    return total;
}

Span Layers::bound(const Term& term) const {
    Span x = spans_[term.args.front()], y = spans_[term.args.back()], zero{0, 0, 0};
    int result;
    switch (term.op) {
        case FDIV: return forward::floor_divide(x, y);
        case MOD: return forward::modulo(x, y);
        case POW: return forward::raise_power(x, y);
        case ABS: return forward::absolute(x);
        case NONZERO: return forward::nonzero(x);
        case INDICATOR:
            if (x.undefined == U) return NEVER;
            return {x.undefined & F ? 0 : 1, x.undefined & T ? 1 : 0, x.undefined & U ? 1 : 0};
        case LE: result = forward::at_most(x, zero); break;
        case EQ: result = forward::equal(x, zero); break;
        case NE: result = forward::negate(forward::equal(x, zero)); break;
        case DIVIDES: result = forward::divides(x, y); break;
        case NOT_DIVIDES: result = forward::negate(forward::divides(x, y)); break;
        case TABLE: result = table_bits(term); break;
        default: result = forward::negate(table_bits(term)); break;
    }
    return {0, 0, result};
}

int Layers::table_bits(const Term& term) const {
    bool decided = true, found = false;
    int result = 0;
    for (int arg : term.args) {
        const Span& span = spans_[arg];
        if (span.undefined == 2) return U;
        if (span.undefined) result = U;
        decided = decided && span.low == span.high;
    }
    // Where the first columns are known numbers, only the rows that begin with these are looked at.
    size_t width = term.args.size(), known = 0;
    while (known < width && spans_[term.args[known]].low == spans_[term.args[known]].high) ++known;
    size_t prefix = std::min(known + 1, width);
    size_t row = first_row(term.rows, width, prefix, [&](size_t i) { return spans_[term.args[i]].low; }) * width;
    for (; row < term.rows.size() && !found; row += width) {
        bool beyond = false;
        for (size_t i = 0; i < prefix && !beyond; ++i) {
            if (term.rows[row + i] < spans_[term.args[i]].high) break;
            beyond = term.rows[row + i] > spans_[term.args[i]].high;
        }
        if (beyond) break;
        found = true;
        for (size_t i = 0; i < width && found; ++i) {
            const Span& span = spans_[term.args[i]];
            found = span.low <= term.rows[row + i] && term.rows[row + i] <= span.high;
        }
    }
    if (decided) return result | (found ? T : F);
    return result | F | (found ? T : 0);
}

// The value of an operator that does not gather, from those of its operands.
int64_t Layers::apply(int n) const {
    const Term& term = nodes_[n];
    for (int arg : term.args)
        if (value_[arg] == UNDEFINED) return UNDEFINED;
    int64_t x = value_[term.args.front()], y = value_[term.args.back()];
    switch (term.op) {
        case LE: return x <= 0;
        case EQ: return x == 0;
        case NE: return x != 0;
        case DIVIDES: return x ? y % x == 0 : UNDEFINED;
        case NOT_DIVIDES: return x ? y % x != 0 : UNDEFINED;
        case FDIV: return y ? floor_div(x, y) : UNDEFINED;
        case MOD: return y ? floor_mod(x, y) : UNDEFINED;
        case ABS: return magnitude(x);
        case NONZERO: return x ? x : UNDEFINED;
        case INDICATOR: return x;
        case POW: return y < 0 ? UNDEFINED : power(x, y);
        case TABLE: return member(n);
        default: return !member(n);
    }
}

bool Layers::member(int n) const {
    const Term& term = nodes_[n];
    size_t width = term.args.size(), low = 0, high = term.rows.size() / width;
    auto below = [&](size_t row) {  // whether the row comes before the values, and whether it equals them
        for (size_t i = 0; i < width; ++i) {
            int64_t difference = term.rows[row * width + i] - value_[term.args[i]];
            if (difference) return difference < 0 ? -1 : 1;
        }
        return 0;
    };
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = below(middle);
        if (order == 0) return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

bool Layers::normalise(int d) {
    const Term& root = nodes_.back();
    if (root.op == LE) divide_sum(d, root.args[0]);
    return root.op != DIVIDES || reduce_dividend(d, root.args[0], root.args[1]);
}

void Layers::divide_sum(int d, int n) {
    const Term& term = nodes_[n];
    if (term.op != ADD || value_[n] == UNDEFINED || !is_kept(n, d)) return;
    int64_t whole = 0, common = 0;
    for (size_t i = 0; i < term.args.size(); ++i) {
        int arg = term.args[i];
        if (last_[arg] < d) continue;
        int64_t gathered = nodes_[arg].op == MUL && is_kept(arg, d) ? value_[arg] : 1;
        if (gathered == UNDEFINED) return;
        whole = std::gcd(whole, term.coefs[i] * gathered);
        common = std::gcd(common, gathered);
    }
    if (whole <= 1) return;
    value_[n] = ceil_div(value_[n], whole) * (whole / common);
    for (int arg : term.args)
        if (last_[arg] >= d && nodes_[arg].op == MUL && is_kept(arg, d)) value_[arg] /= common;
}

bool Layers::reduce_dividend(int d, int divisor, int dividend) {
    int64_t by = value_[divisor], of = value_[dividend];
    if (last_[dividend] < d) {
        bool some = nodes_[divisor].op == MUL && is_kept(divisor, d);
        return !some || by == UNDEFINED || of == UNDEFINED || (by != 0 && of % by == 0);
    }
    if (last_[divisor] < d && by != 0 && by != UNDEFINED && of != 0 && of != UNDEFINED && is_kept(dividend, d)) {
        if (nodes_[dividend].op == MUL) value_[dividend] = std::gcd(of, by);
        if (nodes_[dividend].op == ADD) value_[dividend] = floor_mod(of, magnitude(by));
    }
    return true;
}

}  // namespace constrint
