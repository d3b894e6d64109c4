// 16-bit floating-point numbers, and the special functions.
//
// Conversions round to nearest even; a NaN becomes 0x7fff (PTX ISA, cvt). The special functions are those of the C
// library in float, which lie inside the bounds that the PTX ISA gives for the approximate instructions. They go by the
// compiler's own names: to read <cmath> takes longer than to compile a kernel.
#pragma once

#include "types.hpp"

namespace tilesmith::emulate {

inline unsigned short to_bfloat16(float value) {
    const unsigned bits = __float_as_uint(value);
    if (__builtin_isnan(value)) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline float from_bfloat16(unsigned bits) { return __uint_as_float(bits << 16); }

inline unsigned short to_float16(float value) {
    if (__builtin_isnan(value)) return 0x7fff;
    const unsigned bits = __float_as_uint(value);
    const unsigned sign = bits >> 16 & 0x8000u;
    const float magnitude = __builtin_fabsf(value);
    if (magnitude >= 65520.0f) return static_cast<unsigned short>(sign | 0x7c00u);  // above the largest by half a step
    if (magnitude < 0x1p-14f)  // subnormal: a multiple of 2^-24, and rint rounds to nearest even
        return static_cast<unsigned short>(sign | static_cast<unsigned>(__builtin_nearbyintf(magnitude * 0x1p24f)));
    const unsigned rounded = (bits & 0x7fffffffu) + 0xfffu + (bits >> 13 & 1);
    return static_cast<unsigned short>(sign | (rounded - (112u << 23)) >> 13);  // exponent bias 127 becomes 15
}
inline float from_float16(unsigned bits) {
    const float sign = bits & 0x8000u ? -1.0f : 1.0f;
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return fraction ? __builtin_nanf("") : sign * __builtin_inff();
    if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
    return __uint_as_float((bits & 0x8000u) << 16 | (exponent + 112) << 23 | fraction << 13);
}

/// .ftz: a subnormal counts as zero of the same sign.
inline float flush(float value) { return __builtin_fabsf(value) < 0x1p-126f ? __builtin_copysignf(0.0f, value) : value; }

}  // namespace tilesmith::emulate
