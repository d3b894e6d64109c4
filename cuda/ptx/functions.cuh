// Functions of one number or two: of the multi-function unit, of CUDA's library, and arithmetic.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

// ---- special functions of the multi-function unit ----

/// tanh, relative error 2^-11 (PTX ISA).
TILESMITH_DEVICE float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// 2^x, at most 2 units in the last place.
TILESMITH_DEVICE float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// log2(x), absolute error 2^-22 near 1.
TILESMITH_DEVICE float lg2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// 1 / x, at most 1 unit in the last place.
TILESMITH_DEVICE float rcp_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
TILESMITH_DEVICE float sqrt_approx(float x) {
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- the same functions as CUDA's library has them (errors: CUDA C++ Programming Guide, "Mathematical Functions") ----

/// tanh and e^x, at most 2 units in the last place.
TILESMITH_DEVICE float tanh_library(float x) { return tanhf(x); }
TILESMITH_DEVICE float exp_library(float x) { return expf(x); }
/// log(x) and log(1 + x), at most 1 unit in the last place.
TILESMITH_DEVICE float log_library(float x) { return logf(x); }
TILESMITH_DEVICE float log1p_library(float x) { return log1pf(x); }
/// x^y, at most 4 units in the last place.
TILESMITH_DEVICE float pow_library(float x, float y) { return powf(x, y); }
/// The nearest float.
TILESMITH_DEVICE float sqrt_rn(float x) { return __fsqrt_rn(x); }
TILESMITH_DEVICE float rcp_rn(float x) { return __frcp_rn(x); }

// ---- and in double: each errs by at most 2 units in the last place ----

TILESMITH_DEVICE double tanh_library(double x) { return ::tanh(x); }
TILESMITH_DEVICE double exp_library(double x) { return ::exp(x); }
TILESMITH_DEVICE double log_library(double x) { return ::log(x); }
TILESMITH_DEVICE double log1p_library(double x) { return ::log1p(x); }
TILESMITH_DEVICE double pow_library(double x, double y) { return ::pow(x, y); }
TILESMITH_DEVICE double sqrt_rn(double x) { return __dsqrt_rn(x); }
TILESMITH_DEVICE double rcp_rn(double x) { return __drcp_rn(x); }

// ---- arithmetic ----

TILESMITH_DEVICE float fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
TILESMITH_DEVICE float max_rn(float a, float b) { return fmaxf(a, b); }
TILESMITH_DEVICE float min_rn(float a, float b) { return fminf(a, b); }
TILESMITH_DEVICE float abs_rn(float a) { return fabsf(a); }
TILESMITH_DEVICE double abs_rn(double a) { return fabs(a); }

}  // namespace tilesmith
