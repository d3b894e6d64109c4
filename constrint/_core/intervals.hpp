// Exact interval arithmetic and its backward projection: the twin of intervals.py and project.py.
//
// Whoever builds a program has checked that every node stays within +-2**61 over the root domains, and every function
// is inclusion-monotone, so nothing here can overflow; what might (projections that multiply) is done in 128 bits.
// The prover also takes sums and products of numbers that are never negative and may be larger ("wide", see native.py).
// These saturate: a low bound of LIMIT means "at least LIMIT", a high bound of LIMIT "not bounded".
#pragma once

#include <algorithm>
#include <cstdint>

namespace constrint {

enum Op : uint8_t {
    CONST, VAR, ADD, SUB, MUL, FDIV, MOD, POW, MIN, MAX, ABS, NONZERO, INDICATOR,
    TRUE_, FALSE_, EQ, NE, LE, AND, OR, DIVIDES, NOT_DIVIDES, TABLE, NOT_TABLE
};

// What a condition can be over a box: any sum of these bits.
enum Bits : int { T = 1, F = 2, U = 4 };

// Bounds of a number; undefined: 0 never, 1 maybe, 2 always. Of a condition, undefined holds its bits.
struct Span {
    int64_t low, high;
    int undefined;
};

struct Bounds {
    int64_t low, high;
    bool empty() const { return low > high; }
};

constexpr Span NEVER{0, 0, 2};
constexpr Bounds NONE{1, 0};
constexpr int64_t LIMIT = int64_t{1} << 62;

inline int64_t clamp(__int128 x) { return x > LIMIT ? LIMIT : x < -LIMIT ? -LIMIT : static_cast<int64_t>(x); }

inline int64_t floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
inline int64_t floor_mod(int64_t a, int64_t b) {
    int64_t r = a % b;
    return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}
inline int64_t magnitude(int64_t a) { return a < 0 ? -a : a; }

// base ** exponent, exponent >= 0; the result is known to fit.
inline int64_t power(int64_t base, int64_t exponent) {
    if (exponent == 0 || base == 1) return 1;
    if (base == 0) return 0;
    if (base == -1) return exponent % 2 ? -1 : 1;
    int64_t result = 1;
    for (; exponent > 0; --exponent) result *= base;
    return result;
}

namespace forward {

inline Span add(Span x, Span y) {
    auto plus = [](int64_t a, int64_t b) { return clamp(static_cast<__int128>(a) + b); };
    return {plus(x.low, y.low), plus(x.high, y.high), std::max(x.undefined, y.undefined)};
}
inline Span subtract(Span x, Span y) { return {x.low - y.high, x.high - y.low, std::max(x.undefined, y.undefined)}; }

inline Span multiply(Span x, Span y) {
    auto times = [](int64_t a, int64_t b) { return clamp(static_cast<__int128>(a) * b); };
    int64_t p = times(x.low, y.low), q = times(x.low, y.high), r = times(x.high, y.low), s = times(x.high, y.high);
    return {std::min(std::min(p, q), std::min(r, s)), std::max(std::max(p, q), std::max(r, s)),
            std::max(x.undefined, y.undefined)};
}

inline Span floor_divide(Span x, Span y) {
    int undefined = std::max(x.undefined, y.undefined);
    if (undefined == 2 || (y.low == 0 && y.high == 0)) return NEVER;
    int64_t low = INT64_MAX, high = INT64_MIN;
    auto corner = [&](int64_t a, int64_t b) {
        int64_t q = floor_div(a, b);
        low = std::min(low, q);
        high = std::max(high, q);
    };
    if (y.high > 0) {
        int64_t c = std::max<int64_t>(y.low, 1);
        corner(x.low, c), corner(x.low, y.high), corner(x.high, c), corner(x.high, y.high);
    }
    if (y.low < 0) {
        int64_t d = std::min<int64_t>(y.high, -1);
        corner(x.low, y.low), corner(x.low, d), corner(x.high, y.low), corner(x.high, d);
    }
    return {low, high, y.low <= 0 && 0 <= y.high ? 1 : undefined};
}

inline Bounds modulo_positive(int64_t a, int64_t b, int64_t c, int64_t d) {
    if (a >= 0 && b < c) return {a, b};
    if (c == d && floor_div(a, c) == floor_div(b, c)) return {floor_mod(a, c), floor_mod(b, c)};
    return {0, a >= 0 ? std::min(b, d - 1) : d - 1};
}

inline Span modulo(Span x, Span y) {
    int undefined = std::max(x.undefined, y.undefined);
    if (undefined == 2 || (y.low == 0 && y.high == 0)) return NEVER;
    int64_t low = INT64_MAX, high = INT64_MIN;
    if (y.high > 0) {
        Bounds r = modulo_positive(x.low, x.high, std::max<int64_t>(y.low, 1), y.high);
        low = r.low, high = r.high;
    }
    if (y.low < 0) {
        Bounds r = modulo_positive(-x.high, -x.low, std::max<int64_t>(-y.high, 1), -y.low);
        low = std::min(low, -r.high), high = std::max(high, -r.low);
    }
    return {low, high, y.low <= 0 && 0 <= y.high ? 1 : undefined};
}

inline Span raise_power(Span x, Span y) {
    int undefined = std::max(x.undefined, y.undefined);
    if (undefined == 2 || y.high < 0) return NEVER;
    int64_t c = std::max<int64_t>(y.low, 0), d = y.high;
    int64_t exponents[4] = {c, std::min(c + 1, d), std::max(d - 1, c), d};
    int64_t bases[3] = {x.low, x.high, x.low < 0 && 0 < x.high ? 0 : x.low};
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t base : bases)
        for (int64_t e : exponents) {
            int64_t value = power(base, e);
            low = std::min(low, value), high = std::max(high, value);
        }
    return {low, high, y.low < 0 ? 1 : undefined};
}

inline Span smaller(Span x, Span y) {
    return {std::min(x.low, y.low), std::min(x.high, y.high), std::max(x.undefined, y.undefined)};
}
inline Span larger(Span x, Span y) {
    return {std::max(x.low, y.low), std::max(x.high, y.high), std::max(x.undefined, y.undefined)};
}
inline Span absolute(Span x) {
    if (x.low >= 0) return x;
    if (x.high <= 0) return {-x.high, -x.low, x.undefined};
    return {0, std::max(-x.low, x.high), x.undefined};
}
inline Span nonzero(Span x) {
    if (x.undefined == 2 || (x.low == 0 && x.high == 0)) return NEVER;
    return {x.low + (x.low == 0), x.high - (x.high == 0), x.low <= 0 && 0 <= x.high ? 1 : x.undefined};
}

inline int equal(Span x, Span y) {
    if (x.undefined == 2 || y.undefined == 2) return U;
    int bits = x.undefined || y.undefined ? U : 0;
    if (x.low <= y.high && y.low <= x.high) bits |= T;
    return x.low == x.high && y.low == y.high && x.low == y.low && x.low < LIMIT ? bits : bits | F;
}
inline int at_most(Span x, Span y) {
    if (x.undefined == 2 || y.undefined == 2) return U;
    int bits = x.undefined || y.undefined ? U : 0;
    if (x.low <= y.high) bits |= T;
    return x.high > y.low || x.high >= LIMIT ? bits | F : bits;
}
inline int divides(Span x, Span y) {
    if (x.undefined == 2 || y.undefined == 2 || (x.low == 0 && x.high == 0)) return U;
    bool zero = x.low <= 0 && 0 <= x.high;
    int bits = x.undefined || y.undefined || zero ? U : 0;
    if (y.low == y.high && x.low == x.high && std::max(x.high, y.high) < LIMIT)
        return bits | (y.low % x.low == 0 ? T : F);
    bool multiple = (y.low <= 0 && 0 <= y.high) || y.high >= LIMIT;
    if (!multiple && x.low == x.high) {
        int64_t step = magnitude(x.low);
        multiple = floor_div(y.high, step) * step >= y.low;
    } else if (!multiple) {
        int64_t least = zero ? 1 : std::min(magnitude(x.low), magnitude(x.high));
        multiple = std::max(magnitude(y.low), magnitude(y.high)) >= least;
    }
    if (multiple) bits |= T;
    return (y.low == 0 && y.high == 0) || (x.low >= -1 && x.high <= 1) ? bits : bits | F;
}
inline int negate(int bits) { return (bits & U) | (bits & T ? F : 0) | (bits & F ? T : 0); }
inline int conjunction(int p, int q) {
    int bits = (p & q & T) | ((p | q) & F);
    if ((p & U && q & (U | T)) || (q & U && p & (U | T))) bits |= U;
    return bits;
}
inline int disjunction(int p, int q) { return negate(conjunction(negate(p), negate(q))); }

}  // namespace forward

namespace backward {

inline Bounds quotient(Bounds z, Bounds x, Bounds y) {
    bool zero = z.low <= 0 && 0 <= z.high;
    if (!zero) {
        y = {y.low + (y.low == 0), y.high - (y.high == 0)};
        if (y.empty()) return NONE;
    }
    if (y.low <= 0 && 0 <= y.high) {
        if (zero) return x;
        int64_t reach = std::max(magnitude(z.low), magnitude(z.high));
        return {std::max(x.low, -reach), std::min(x.high, reach)};
    }
    if (z.low >= 0 && y.low > 0) {
        int64_t up = z.high >= LIMIT ? LIMIT : z.high / y.low;
        return {std::max(x.low, z.low ? (z.low - 1) / y.high + 1 : 0), std::min(x.high, up)};
    }
    int64_t down = std::min(std::min(ceil_div(z.low, y.low), ceil_div(z.low, y.high)),
                            std::min(ceil_div(z.high, y.low), ceil_div(z.high, y.high)));
    int64_t up = std::max(std::max(floor_div(z.low, y.low), floor_div(z.low, y.high)),
                          std::max(floor_div(z.high, y.low), floor_div(z.high, y.high)));
    return {std::max(x.low, down), std::min(x.high, up)};
}

inline void floor_divide(Bounds& x, Bounds& y, Bounds z) {
    y = {y.low + (y.low == 0), y.high - (y.high == 0)};
    if (y.low > 0) {
        auto times = [](int64_t a, int64_t b) { return static_cast<__int128>(a) * b; };
        x.low = std::max(x.low, clamp(std::min(times(z.low, y.low), times(z.low, y.high))));
        x.high = std::min(x.high, clamp(std::max(times(z.high + 1, y.low), times(z.high + 1, y.high)) - 1));
        int64_t c = y.low, d = y.high;
        if (x.low >= 0 && z.low >= 1) d = std::min(d, floor_div(x.high, z.low));
        if (x.low >= 0 && z.high >= 0) c = std::max(c, x.low / (z.high + 1) + 1);
        y = {c, d};
    } else if (y.high < 0) {
        Bounds nx{-x.high, -x.low}, ny{-y.high, -y.low};
        floor_divide(nx, ny, z);
        x = {-nx.high, -nx.low}, y = {-ny.high, -ny.low};
    }
}

inline void modulo(Bounds& x, Bounds& y, Bounds z) {
    y = {y.low + (y.low == 0), y.high - (y.high == 0)};
    if (y.low > 0) {
        y.low = std::max(y.low, z.low + 1);
        z.high = std::min(z.high, y.high - 1);
        if (y.low == y.high && z.low <= z.high) {
            int64_t c = y.low, rest = floor_mod(x.low, c);
            x.low += rest < z.low ? z.low - rest : rest > z.high ? c - rest + z.low : 0;
            rest = floor_mod(x.high, c);
            x.high -= rest > z.high ? rest - z.high : rest < z.low ? rest + c - z.high : 0;
        } else if (x.low >= 0) {
            x.low = std::max(x.low, z.low);
        }
    } else if (y.high < 0) {
        Bounds nx{-x.high, -x.low}, ny{-y.high, -y.low};
        modulo(nx, ny, {-z.high, -z.low});
        x = {-nx.high, -nx.low}, y = {-ny.high, -ny.low};
    }
}

// Whether r ** degree <= number.
inline bool power_within(int64_t r, int64_t degree, int64_t number) {
    if (r <= 1) return r <= number || degree == 0;
    __int128 reached = 1;
    for (int64_t i = 0; i < degree; ++i) {
        reached *= r;
        if (reached > number) return false;
    }
    return true;
}

// The largest r >= 0 with r ** degree <= number, for number >= 0 and degree >= 1.
inline int64_t root(int64_t number, int64_t degree) {
    if (degree == 1 || number < 2) return number;
    int64_t low = 1, high = int64_t{1} << (62 / std::min<int64_t>(degree, 62) + 1);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        (power_within(middle, degree, number) ? low : high) = middle;
    }
    return low;
}

// The largest e with base ** e <= number, for number >= 1 and base >= 2.
inline int64_t log_floor(int64_t number, int64_t base) {
    int64_t e = 0;
    for (__int128 reached = base; reached <= number; reached *= base) ++e;
    return e;
}

inline void raise_power(Bounds& x, Bounds& y, Bounds z) {
    y.low = std::max<int64_t>(y.low, 0);
    if (y.low == y.high && y.low >= 1 && (x.low >= 0 || y.low % 2 == 0)) {
        if (z.high < 0) {
            x = NONE;
            return;
        }
        int64_t reach = root(z.high, y.low), least = z.low > 0 ? root(z.low - 1, y.low) + 1 : 0;
        x = {std::max(x.low, -reach), std::min(x.high, reach)};
        if (x.low > -least) x.low = std::max(x.low, least);
        if (x.high < least) x.high = std::min(x.high, -least);
    } else if (x.low == x.high && x.low >= 2) {
        if (z.high < 1) {
            y = NONE;
            return;
        }
        y.high = std::min(y.high, log_floor(z.high, x.low));
        if (z.low > 1) y.low = std::max(y.low, log_floor(z.low - 1, x.low) + 1);
    }
}

inline void absolute(Bounds& x, Bounds z) {
    z.low = std::max<int64_t>(z.low, 0);
    x = {std::max(x.low, -z.high), std::min(x.high, z.high)};
    if (x.low > -z.low) x.low = std::max(x.low, z.low);
    if (x.high < z.low) x.high = std::min(x.high, -z.low);
}

// Narrow the operands x and y of ``x op y = z`` (y is unused by ABS and NONZERO).
inline void project(Op op, Bounds& x, Bounds& y, Bounds z) {
    Bounds u = x, v = y;
    switch (op) {
        case ADD:
            x.low = std::max(u.low, z.low - v.high);
            y.low = std::max(v.low, z.low - u.high);
            if (z.high >= LIMIT) break;
            x.high = std::min(u.high, z.high - v.low);
            y.high = std::min(v.high, z.high - u.low);
            break;
        case SUB:
            x = {std::max(u.low, z.low + v.low), std::min(u.high, z.high + v.high)};
            y = {std::max(v.low, u.low - z.high), std::min(v.high, u.high - z.low)};
            break;
        case MUL:
            x = quotient(z, u, v);
            if (!x.empty()) y = quotient(z, v, x);
            break;
        case FDIV: floor_divide(x, y, z); break;
        case MOD: modulo(x, y, z); break;
        case POW: raise_power(x, y, z); break;
        case MIN:
            x = {std::max(u.low, z.low), v.low > z.high ? std::min(u.high, z.high) : u.high};
            y = {std::max(v.low, z.low), u.low > z.high ? std::min(v.high, z.high) : v.high};
            break;
        case MAX:
            x = {v.high < z.low ? std::max(u.low, z.low) : u.low, std::min(u.high, z.high)};
            y = {u.high < z.low ? std::max(v.low, z.low) : v.low, std::min(v.high, z.high)};
            break;
        case ABS: absolute(x, z); break;
        case NONZERO:
            x = {std::max(u.low, z.low), std::min(u.high, z.high)};
            x = {x.low + (x.low == 0), x.high - (x.high == 0)};
            break;
        default: break;
    }
}

inline void unequal(Bounds& x, Bounds& y) {
    if (std::max(x.high, y.high) >= LIMIT) return;
    if (y.low == y.high) x = {x.low + (x.low == y.low), x.high - (x.high == y.low)};
    if (x.low == x.high) y = {y.low + (y.low == x.low), y.high - (y.high == x.low)};
}

inline void divides(Bounds& x, Bounds& y) {
    x = {x.low + (x.low == 0), x.high - (x.high == 0)};
    if (!(y.low <= 0 && 0 <= y.high)) {
        int64_t reach = std::max(magnitude(y.low), magnitude(y.high));
        x = {std::max(x.low, -reach), std::min(x.high, reach)};
    }
    if (x.low == x.high) {
        int64_t step = magnitude(x.low);
        if (y.low < LIMIT) y.low = ceil_div(y.low, step) * step;
        if (y.high < LIMIT) y.high = floor_div(y.high, step) * step;
    }
}

}  // namespace backward
}  // namespace constrint
