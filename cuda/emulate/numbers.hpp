// 16-bit floating-point numbers, and the special functions.
//
// Conversions round to nearest even; a NaN becomes 0x7fff (PTX ISA, cvt). The special functions are those of the C
// library in float, which lie inside the bounds that the PTX ISA gives for the approximate instructions.
#pragma once

#include <cmath>

#include "types.hpp"

namespace tilesmith::emulate {

inline unsigned short to_bfloat16(float value) {
    const unsigned bits = __float_as_uint(value);
    if (std::isnan(value)) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline float from_bfloat16(unsigned bits) { return __uint_as_float(bits << 16); }

inline unsigned short to_float16(float value) {
    if (std::isnan(value)) return 0x7fff;
    const unsigned bits = __float_as_uint(value);
    const unsigned sign = bits >> 16 & 0x8000u;
    const float magnitude = std::fabs(value);
    if (magnitude >= 65520.0f) return static_cast<unsigned short>(sign | 0x7c00u);  // above the largest by half a step
    if (magnitude < 0x1p-14f)  // subnormal: a multiple of 2^-24, and rint rounds to nearest even
        return static_cast<unsigned short>(sign | static_cast<unsigned>(std::nearbyint(magnitude * 0x1p24f)));
    const unsigned rounded = (bits & 0x7fffffffu) + 0xfffu + (bits >> 13 & 1);
    return static_cast<unsigned short>(sign | (rounded - (112u << 23)) >> 13);  // exponent bias 127 becomes 15
}
inline float from_float16(unsigned bits) {
    const float sign = bits & 0x8000u ? -1.0f : 1.0f;
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
    return __uint_as_float((bits & 0x8000u) << 16 | (exponent + 112) << 23 | fraction << 13);
}

/// .ftz: a subnormal counts as zero of the same sign.
inline float flush(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }

}  // namespace tilesmith::emulate
