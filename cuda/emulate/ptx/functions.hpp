// The twin of ptx/functions.cuh.
#pragma once

#include "emulate/numbers.hpp"
#include "emulate/ptx/types.hpp"

namespace tilesmith {

// ---- special functions ----

inline float tanh_approx(float x) { return __builtin_tanhf(x); }
inline float ex2_approx(float x) { return emulate::flush(__builtin_exp2f(emulate::flush(x))); }
inline float lg2_approx(float x) { return __builtin_log2f(emulate::flush(x)); }
inline float rcp_approx(float x) { return emulate::flush(1.0f / emulate::flush(x)); }
inline float sqrt_approx(float x) { return __builtin_sqrtf(emulate::flush(x)); }

// ---- the same functions as a library has them ----

inline float tanh_library(float x) { return __builtin_tanhf(x); }
inline float exp_library(float x) { return __builtin_expf(x); }
inline float log_library(float x) { return __builtin_logf(x); }
inline float log1p_library(float x) { return __builtin_log1pf(x); }
inline float pow_library(float x, float y) { return __builtin_powf(x, y); }
inline float sqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float rcp_rn(float x) { return 1.0f / x; }

inline double tanh_library(double x) { return __builtin_tanh(x); }
inline double exp_library(double x) { return __builtin_exp(x); }
inline double log_library(double x) { return __builtin_log(x); }
inline double log1p_library(double x) { return __builtin_log1p(x); }
inline double pow_library(double x, double y) { return __builtin_pow(x, y); }
inline double sqrt_rn(double x) { return __builtin_sqrt(x); }
inline double rcp_rn(double x) { return 1.0 / x; }

// ---- arithmetic ----

inline float fma_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float max_rn(float a, float b) { return __builtin_fmaxf(a, b); }
inline float min_rn(float a, float b) { return __builtin_fminf(a, b); }
inline float abs_rn(float a) { return __builtin_fabsf(a); }
inline double abs_rn(double a) { return __builtin_fabs(a); }

}  // namespace tilesmith
