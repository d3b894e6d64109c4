// Evaluating a constraint's code: forward over intervals, and at one point.
#include <algorithm>

#include "state.hpp"

namespace constrint {

void State::forward(const Code& code) {
    for (size_t i = 0; i < code.ops.size(); ++i) {
        Op op = code.ops[i];
        int64_t a = code.a[i];
        if (op == VAR) {
            spans_[i] = {low[a], high[a], 0};
        } else if (op == CONST) {
            spans_[i] = {a, a, 0};
        } else if (op > INDICATOR) {
            spans_[i] = {0, 0, bits(code, i)};
        } else {
            Span x = spans_[a], y = spans_[code.b[i]];
            switch (op) {
                case ADD: spans_[i] = forward::add(x, y); break;
                case SUB: spans_[i] = forward::subtract(x, y); break;
                case MUL: spans_[i] = forward::multiply(x, y); break;
                case FDIV: spans_[i] = forward::floor_divide(x, y); break;
                case MOD: spans_[i] = forward::modulo(x, y); break;
                case POW: spans_[i] = forward::raise_power(x, y); break;
                case MIN: spans_[i] = forward::smaller(x, y); break;
                case MAX: spans_[i] = forward::larger(x, y); break;
                case ABS: spans_[i] = forward::absolute(x); break;
                case NONZERO: spans_[i] = forward::nonzero(x); break;
                default:  // INDICATOR
                    spans_[i] = x.undefined == U
                                    ? NEVER
                                    : Span{x.undefined & F ? 0 : 1, x.undefined & T ? 1 : 0, x.undefined & U ? 1 : 0};
            }
        }
    }
}

int State::bits(const Code& code, size_t i) const {
    Op op = code.ops[i];
    int64_t a = code.a[i];
    if (op == TABLE || op == NOT_TABLE) {
        const Table& table = code.tables[a];
        int result = 0;
        bool point = true;
        for (int node : table.operands) {
            if (spans_[node].undefined == 2) return U;
            if (spans_[node].undefined) result = U;
            point = point && spans_[node].low == spans_[node].high;
        }
        bool possible = false;
        for (size_t row = 0; row < table.count() && !possible; ++row) {
            possible = true;
            for (size_t column = 0; column < table.width() && possible; ++column) {
                const Span& span = spans_[table.operands[column]];
                int64_t x = table.rows[row * table.width() + column];
                possible = span.low <= x && x <= span.high;
            }
        }
        result |= point ? (possible ? T : F) : F | (possible ? T : 0);
        return op == TABLE ? result : forward::negate(result);
    }
    if (op == TRUE_ || op == FALSE_) return op == TRUE_ ? T : F;
    const Span &x = spans_[a], &y = spans_[code.b[i]];
    switch (op) {
        case EQ: return forward::equal(x, y);
        case NE: return forward::negate(forward::equal(x, y));
        case LE: return forward::at_most(x, y);
        case AND: return forward::conjunction(x.undefined, y.undefined);
        case OR: return forward::disjunction(x.undefined, y.undefined);
        case DIVIDES: return forward::divides(x, y);
        default: return forward::negate(forward::divides(x, y));
    }
}

// Whether the constraint is true where every variable has its lowest value.
bool State::test(const Code& code) {
    for (size_t i = 0; i < code.ops.size(); ++i) {
        Op op = code.ops[i];
        int64_t a = code.a[i];
        undefined_[i] = 0;
        if (op == VAR || op == CONST) {
            point_[i] = op == VAR ? low[a] : a;
            continue;
        }
        if (op == TRUE_ || op == FALSE_) {
            point_[i] = op == TRUE_;
            continue;
        }
        if (op == TABLE || op == NOT_TABLE) {
            const Table& table = code.tables[a];
            for (size_t column = 0; column < table.width(); ++column) {
                row_[column] = point_[table.operands[column]];
                undefined_[i] |= undefined_[table.operands[column]];
            }
            point_[i] = table.contains(row_.data()) == (op == TABLE);
            continue;
        }
        int b = code.b[i];
        int64_t x = point_[a], y = point_[b];
        bool ux = undefined_[a], uy = undefined_[b];
        if (op == AND || op == OR) {
            bool decisive = op == OR;
            if ((!ux && (x != 0) == decisive) || (!uy && (y != 0) == decisive)) {
                point_[i] = decisive;
            } else {
                point_[i] = !decisive;
                undefined_[i] = ux || uy;
            }
            continue;
        }
        if (ux || uy) {
            undefined_[i] = 1;
            continue;
        }
        // Two numbers too large to tell apart, or a dividend too large to divide.
        if (op > INDICATOR && y >= LIMIT && (x >= LIMIT || op == DIVIDES || op == NOT_DIVIDES)) throw TooWide{};
        switch (op) {
            case ADD: point_[i] = clamp(static_cast<__int128>(x) + y); break;
            case SUB: point_[i] = x - y; break;
            case MUL: point_[i] = clamp(static_cast<__int128>(x) * y); break;
            case FDIV:
                if (!(undefined_[i] = y == 0)) point_[i] = floor_div(x, y);
                break;
            case MOD:
                if (!(undefined_[i] = y == 0)) point_[i] = floor_mod(x, y);
                break;
            case POW:
                if (!(undefined_[i] = y < 0)) point_[i] = power(x, y);
                break;
            case MIN: point_[i] = std::min(x, y); break;
            case MAX: point_[i] = std::max(x, y); break;
            case ABS: point_[i] = magnitude(x); break;
            case NONZERO:
                undefined_[i] = x == 0;
                point_[i] = x;
                break;
            case INDICATOR: point_[i] = x != 0; break;
            case EQ: point_[i] = x == y; break;
            case NE: point_[i] = x != y; break;
            case LE: point_[i] = x <= y; break;
            default:  // DIVIDES, NOT_DIVIDES
                if (!(undefined_[i] = x == 0)) point_[i] = (y % x == 0) == (op == DIVIDES);
        }
    }
    size_t last = code.ops.size() - 1;
    return !undefined_[last] && point_[last];
}

int64_t State::value(int number, size_t node) {
    forward(codes[number]);
    return spans_[node].low;
}

}  // namespace constrint
