// Floats to and from 16 bits and TF32: round to nearest even, or as the function says.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Two floats as one word of two 16-bit values, `low` in bits 0 to 15.
template <class Type>
TILESMITH_DEVICE unsigned pack(float low, float high);
template <>
TILESMITH_DEVICE unsigned pack<bf16>(float low, float high) {
    unsigned out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}
template <>
TILESMITH_DEVICE unsigned pack<fp16>(float low, float high) {
    unsigned out;
    if constexpr (architecture < 80)
        asm("{.reg .b16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high};}"
            : "=r"(out)
            : "f"(low), "f"(high));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

/// The nearest number of TF32, of two the larger in magnitude, as the bits of a float.
TILESMITH_DEVICE unsigned round_tf32(unsigned word) {
    if constexpr (architecture < 80) return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & 0xffffe000u;
    unsigned out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(__uint_as_float(word)));
    return out;
}

template <class Type>
TILESMITH_DEVICE unsigned short to_16(float value) {
    return static_cast<unsigned short>(pack<Type>(value, 0.0f));
}

/// The low and the high half of such a word as floats (exact).
template <class Type>
TILESMITH_DEVICE float unpack_low(unsigned pair);
template <class Type>
TILESMITH_DEVICE float unpack_high(unsigned pair);
template <>
TILESMITH_DEVICE float unpack_low<bf16>(unsigned pair) { return __uint_as_float(pair << 16); }
template <>
TILESMITH_DEVICE float unpack_high<bf16>(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
template <>
TILESMITH_DEVICE float unpack_low<fp16>(unsigned pair) {
    float out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low;}" : "=f"(out) : "r"(pair));
    return out;
}
template <>
TILESMITH_DEVICE float unpack_high<fp16>(unsigned pair) {
    float out;
    asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, high;}" : "=f"(out) : "r"(pair));
    return out;
}

}  // namespace tilesmith
