// Revising one constraint: its interval forwards, what that leaves of its variables backwards; see propagate.py.
#include <algorithm>

#include "state.hpp"

namespace constrint {

bool State::revise(int number) {
    const Code& code = codes[number];
    reviser_ = number;
    explained_ = false;
    forward(code);
    int outcome = spans_[code.ops.size() - 1].undefined;
    if (!(outcome & T)) return false;
    if (outcome == T) {
        entail(number);
        return true;
    }
    int loose = -1, count = 0;
    for (int v : code.variables)
        if (!decided(v)) loose = v, ++count;
    if (count == 1 && domains[loose].listed()) {
        // Bounds are cheaper to find than values are to test.
        if (domains[loose].words() > 1 && size(loose) > 16 && !project(number)) return false;
        return filter(number, loose);
    }
    return project(number);
}

bool State::filter(int number, int v) {
    const Code& code = codes[number];
    const Domain& domain = domains[v];
    int64_t fixed = low[v];
    scratch_.assign(domain.words(), 0);
    for (size_t i = 0; i < domain.words(); ++i)
        for (uint64_t rest = mask_[domain.first_word + i]; rest; rest &= rest - 1) {
            int bit = __builtin_ctzll(rest);
            low[v] = domain.values[i * 64 + bit];
            if (test(code)) scratch_[i] |= uint64_t{1} << bit;
        }
    low[v] = fixed;
    if (!keep(v, scratch_)) return false;
    entail(number);
    return true;
}

bool State::want(int node, Bounds bounds) {
    bounds_[node] = {std::max(spans_[node].low, bounds.low), std::min(spans_[node].high, bounds.high)};
    wanted_[node] = 1;
    return !bounds_[node].empty();
}

bool State::project(int number) {
    const Code& code = codes[number];
    size_t count = code.ops.size();
    std::fill_n(wanted_.begin(), count, 0);
    std::fill_n(required_.begin(), count, 0);
    std::fill_n(multiple_.begin(), count, 0);
    required_[count - 1] = 1;
    for (size_t i = count; i-- > 0;) {
        if (!wanted_[i] && !required_[i]) continue;
        Op op = code.ops[i];
        int64_t a = code.a[i];
        int b = code.b[i];
        if (wanted_[i]) {
            if (op == VAR) {
                if (!restrict(static_cast<int>(a), bounds_[i].low, bounds_[i].high)) return false;
                if (multiple_[i] && !keep_divisors(static_cast<int>(a), multiple_[i])) return false;
            } else if (op == INDICATOR) {
                required_[a] = bounds_[i].low > 0;
            } else if (op != CONST) {
                Bounds x{spans_[a].low, spans_[a].high}, y{spans_[b].low, spans_[b].high};
                backward::project(op, x, y, bounds_[i]);
                if (!want(static_cast<int>(a), x) || (a != b && !want(b, y))) return false;
                // The factors of a product divide what the product divides.
                if (op == MUL) multiple_[a] = multiple_[b] = multiple_[i];
            }
            continue;
        }
        if (op == TABLE) {
            if (!rows(code, code.tables[a])) return false;
            continue;
        }
        if (op == TRUE_ || op == NOT_TABLE || op == NOT_DIVIDES) continue;
        if (op == FALSE_) return false;
        int left = static_cast<int>(a);
        Bounds x{spans_[a].low, spans_[a].high}, y{spans_[b].low, spans_[b].high};
        bool possible = true;
        switch (op) {
            case LE: possible = want(left, {x.low, y.high}) && want(b, {x.low, y.high}); break;
            case EQ:
                possible = want(left, y) && want(b, x);
                if (x.low == x.high && x.low < LIMIT) multiple_[b] = x.low;
                if (y.low == y.high && y.low < LIMIT) multiple_[left] = y.low;
                break;
            case NE:
                backward::unequal(x, y);
                possible = want(left, x) && want(b, y) && remove_value(code, left, b) && remove_value(code, b, left);
                break;
            case DIVIDES:
                if (y.low == y.high && y.low < LIMIT) multiple_[left] = y.low;
                backward::divides(x, y);
                possible = want(left, x) && want(b, y);
                break;
            case AND: required_[a] = required_[b] = 1; break;
            default:  // OR
                if (!(spans_[a].undefined & T))
                    required_[b] = 1;
                else if (!(spans_[b].undefined & T))
                    required_[a] = 1;
        }
        if (!possible) return false;
    }
    return true;
}

// Remove the value of a decided number from a listed variable that must differ from it.
bool State::remove_value(const Code& code, int node, int other) {
    if (code.ops[node] != VAR || spans_[other].low != spans_[other].high) return true;
    int v = static_cast<int>(code.a[node]);
    const Domain& domain = domains[v];
    if (!domain.listed()) return true;
    auto place = std::lower_bound(domain.values.begin(), domain.values.end(), spans_[other].low);
    if (place == domain.values.end() || *place != spans_[other].low) return true;
    size_t bit = place - domain.values.begin();
    auto begin = mask_.begin() + domain.first_word;
    scratch_.assign(begin, begin + domain.words());
    scratch_[bit / 64] &= ~(uint64_t{1} << (bit % 64));
    return keep(v, scratch_);
}

// Keep the values of a listed, undecided variable that divide a number other than 0.
bool State::keep_divisors(int v, int64_t number) {
    const Domain& domain = domains[v];
    if (!domain.listed() || decided(v)) return true;
    auto begin = mask_.begin() + domain.first_word;
    scratch_.assign(begin, begin + domain.words());
    for (size_t i = 0; i < domain.words(); ++i)
        for (uint64_t rest = scratch_[i]; rest; rest &= rest - 1) {
            int64_t value = domain.values[i * 64 + __builtin_ctzll(rest)];
            if (value == 0 || number % value) scratch_[i] &= ~(rest & -rest);
        }
    return keep(v, scratch_);
}

// Keep what some row of a table supports.
bool State::rows(const Code& code, const Table& table) {
    size_t width = table.width();
    std::vector<const int64_t*> alive;
    for (size_t row = 0; row < table.count(); ++row) {
        const int64_t* values = table.rows.data() + row * width;
        bool possible = true;
        for (size_t column = 0; column < width && possible; ++column) {
            const Span& span = spans_[table.operands[column]];
            possible = span.low <= values[column] && values[column] <= span.high;
        }
        if (possible) alive.push_back(values);
    }
    if (alive.empty()) return false;
    for (size_t column = 0; column < width; ++column) {
        int node = table.operands[column];
        int v = code.ops[node] == VAR ? static_cast<int>(code.a[node]) : -1;
        if (v >= 0 && domains[v].listed()) {
            const Domain& domain = domains[v];
            scratch_.assign(domain.words(), 0);
            for (const int64_t* row : alive) {
                auto place = std::lower_bound(domain.values.begin(), domain.values.end(), row[column]);
                if (place == domain.values.end() || *place != row[column]) continue;
                size_t bit = place - domain.values.begin();
                scratch_[bit / 64] |= uint64_t{1} << (bit % 64);
            }
            for (size_t i = 0; i < domain.words(); ++i) scratch_[i] &= mask_[domain.first_word + i];
            if (!keep(v, scratch_)) return false;
            continue;
        }
        int64_t least = alive[0][column], most = least;
        for (const int64_t* row : alive) least = std::min(least, row[column]), most = std::max(most, row[column]);
        if (!want(node, {least, most})) return false;
    }
    return true;
}

}  // namespace constrint
