// How values of the types lie in memory, and how they travel one at a time: what templates that take any type go by.
#pragma once

#include "ptx.cuh"

namespace tilesmith {

template <class Type>
struct Stored {
    using Word = unsigned short;
};
template <>
struct Stored<fp32> {
    using Word = float;
};
template <>
struct Stored<tf32> {
    using Word = float;
};

/// An element of an array of `Type`.
template <class Type>
using Element = typename Stored<Type>::Word;

template <class Type>
inline constexpr int element_bytes = static_cast<int>(sizeof(Element<Type>));

/// As a float (exact), and the nearest element to one.
template <class Type>
TILESMITH_DEVICE float to_float(Element<Type> value) {
    if constexpr (element_bytes<Type> == 2)
        return unpack_low<Type>(value);
    else
        return value;
}
template <class Type>
TILESMITH_DEVICE Element<Type> to_element(float value) {
    if constexpr (element_bytes<Type> == 2)
        return to_16<Type>(value);
    else
        return value;
}

/// What is left of a value that is stored.
template <class Type>
TILESMITH_DEVICE float rounded(float value) {
    return to_float<Type>(to_element<Type>(value));
}

TILESMITH_DEVICE unsigned short load_element(const unsigned short* from) { return load_global_16(from); }
TILESMITH_DEVICE float load_element(const float* from) { return load_global_float(from); }
TILESMITH_DEVICE void store_element(unsigned short* to, unsigned short value) { store_global_16(to, value); }
TILESMITH_DEVICE void store_element(float* to, float value) { store_global_float(to, value); }

/// An element in shared memory, as a float.
template <class Type>
TILESMITH_DEVICE float load_shared_element(SharedAddress from) {
    if constexpr (element_bytes<Type> == 2)
        return to_float<Type>(load_shared_16(from));
    else
        return __uint_as_float(load_shared_32(from));
}
template <class Type>
TILESMITH_DEVICE void store_shared_element(SharedAddress to, float value) {
    if constexpr (element_bytes<Type> == 2)
        store_shared_16(to, to_16<Type>(value));
    else
        store_shared_32(to, __float_as_uint(value));
}

/// The widest vector, in elements, of at most 16 bytes that divides every row of `head_dim` elements.
template <class Type>
TILESMITH_DEVICE constexpr int widest_vector(int head_dim) {
    const int most = 16 / element_bytes<Type>;
    return head_dim % most == 0 ? most : head_dim % (most / 2) == 0 ? most / 2 : head_dim % 2 == 0 ? 2 : 1;
}

}  // namespace tilesmith
