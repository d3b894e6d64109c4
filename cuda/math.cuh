// The functions of the cell language, twice: `math`, in float from the approximate instructions of the multi-function unit,
// for 16-bit types, and `accurate`, from CUDA's library, in float or double (kernelgen/program/dtypes.py names which).
//
// Each saturates where the true function does (infinities included) and hands a NaN on. Errors come from what is behind
// each, as ptx.cuh gives them. kernelgen/symbolic/instructions.py counts the instructions written in `math`.
#pragma once

#include "ptx.cuh"

namespace tilesmith::math {

inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;

TILESMITH_DEVICE float tanh(float x) { return tanh_approx(x); }

/// 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2: one special operation where exp and a reciprocal would be two.
TILESMITH_DEVICE float sigmoid(float x) { return fma_rn(0.5f, tanh_approx(0.5f * x), 0.5f); }

TILESMITH_DEVICE float exp(float x) { return ex2_approx(log2_e * x); }

TILESMITH_DEVICE float log(float x) { return ln_2 * lg2_approx(x); }

/// log(sigmoid(x)) without overflow: the exponential's argument is never positive. Choosing with a comparison
/// instead of fminf keeps a NaN.
TILESMITH_DEVICE float log_sigmoid(float x) {
    const float tail = lg2_approx(1.0f + ex2_approx(-log2_e * abs_rn(x)));
    return fma_rn(-ln_2, tail, x > 0.0f ? 0.0f : x);
}

/// log(1 + exp(x)) without overflow.
TILESMITH_DEVICE float softplus(float x) {
    const float tail = lg2_approx(1.0f + ex2_approx(-log2_e * abs_rn(x)));
    return fma_rn(ln_2, tail, x < 0.0f ? 0.0f : x);
}

template <class Number>
TILESMITH_DEVICE Number relu(Number x) { return x < 0 ? Number(0) : x; }

/// The larger value; a NaN if either is one (fmaxf would drop it). A constant belongs in `a`: its test folds away.
template <class Number>
TILESMITH_DEVICE Number maximum(Number a, Number b) { return a > b || a != a ? a : b; }

/// The smaller value; a NaN if either is one.
template <class Number>
TILESMITH_DEVICE Number minimum(Number a, Number b) { return a < b || a != a ? a : b; }

template <class Number>
TILESMITH_DEVICE Number absolute(Number x) { return abs_rn(x); }

/// -1, 0 or 1.
template <class Number>
TILESMITH_DEVICE Number sign(Number x) { return x > 0 ? Number(1) : (x < 0 ? Number(-1) : x); }

TILESMITH_DEVICE float reciprocal(float x) { return rcp_approx(x); }

TILESMITH_DEVICE float sqrt(float x) { return sqrt_approx(x); }

/// x to a positive integer power, by squaring.
template <int Exponent, class Number>
TILESMITH_DEVICE Number power(Number x) {
    static_assert(Exponent >= 1, "the exponent of an integer power must be positive");
    if constexpr (Exponent == 1) {
        return x;
    } else {
        const Number root = power<Exponent / 2>(x);
        return Exponent % 2 == 0 ? root * root : root * root * x;
    }
}

/// x^y for x >= 0.
TILESMITH_DEVICE float power(float x, float y) { return ex2_approx(y * lg2_approx(x)); }

}  // namespace tilesmith::math

namespace tilesmith::accurate {

using math::absolute, math::maximum, math::minimum, math::relu, math::sign;

template <class Number>
TILESMITH_DEVICE Number tanh(Number x) { return tanh_library(x); }

/// 1 / x, at most 1 unit in the last place. In float by the multi-function unit: the nearest number takes a branch and a call,
/// which part what the compiler interleaves.
TILESMITH_DEVICE float reciprocal(float x) { return rcp_approx(x); }
TILESMITH_DEVICE double reciprocal(double x) { return rcp_rn(x); }

/// 1 / (1 + exp(-x)); 0 where exp(-x) is infinite.
template <class Number>
TILESMITH_DEVICE Number sigmoid(Number x) { return reciprocal(1 + exp_library(-x)); }

template <class Number>
TILESMITH_DEVICE Number exp(Number x) { return exp_library(x); }

template <class Number>
TILESMITH_DEVICE Number log(Number x) { return log_library(x); }

template <class Number>
TILESMITH_DEVICE Number log_sigmoid(Number x) { return (x > 0 ? Number(0) : x) - log1p_library(exp_library(-abs_rn(x))); }

template <class Number>
TILESMITH_DEVICE Number softplus(Number x) { return (x < 0 ? Number(0) : x) + log1p_library(exp_library(-abs_rn(x))); }

template <class Number>
TILESMITH_DEVICE Number sqrt(Number x) { return sqrt_rn(x); }

template <int Exponent, class Number>
TILESMITH_DEVICE Number power(Number x) {
    return math::power<Exponent>(x);
}

template <class Number>
TILESMITH_DEVICE Number power(Number x, Number y) { return pow_library(x, y); }

}  // namespace tilesmith::accurate
