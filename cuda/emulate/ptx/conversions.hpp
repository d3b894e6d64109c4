// The twin of ptx/conversions.cuh.
#pragma once

#include "emulate/numbers.hpp"
#include "emulate/ptx/types.hpp"

namespace tilesmith {

namespace emulate {
template <class Type>
struct Format;
template <>
struct Format<bf16> {
    static float decode(unsigned bits) { return from_bfloat16(bits); }
    static unsigned short encode(float value) { return to_bfloat16(value); }
};
template <>
struct Format<fp16> {
    static float decode(unsigned bits) { return from_float16(bits); }
    static unsigned short encode(float value) { return to_float16(value); }
};
}  // namespace emulate

inline unsigned round_tf32(unsigned word) {
    const bool finite = (word & 0x7f800000u) != 0x7f800000u;
    const bool nan = !finite && (word & 0x7fffffu) != 0;
    return nan ? 0x7fffffffu : finite ? (word + 0x1000u) & 0xffffe000u : word;
}

template <class Type>
unsigned short to_16(float value) {
    return emulate::Format<Type>::encode(value);
}
template <class Type>
unsigned pack(float low, float high) {
    return to_16<Type>(low) | static_cast<unsigned>(to_16<Type>(high)) << 16;
}
template <class Type>
float unpack_low(unsigned pair) {
    return emulate::Format<Type>::decode(pair & 0xffffu);
}
template <class Type>
float unpack_high(unsigned pair) {
    return emulate::Format<Type>::decode(pair >> 16);
}

}  // namespace tilesmith
