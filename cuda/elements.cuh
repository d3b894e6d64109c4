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
template <>
struct Stored<fp64> {
    using Word = double;
};

/// What sums and states are while a kernel runs, by the element of an array.
template <class Word>
struct ComputedIn {
    using Type = float;
};
template <>
struct ComputedIn<double> {
    using Type = double;
};
template <class Word>
using SumOf = typename ComputedIn<Word>::Type;

/// An element of an array of `Type`.
template <class Type>
using Element = typename Stored<Type>::Word;

/// What a kernel computes in.
template <class Type>
using Real = SumOf<Element<Type>>;

template <class Type>
inline constexpr int element_bytes = static_cast<int>(sizeof(Element<Type>));

/// As what a kernel computes in (exact), and the nearest element to that.
template <class Type>
TILESMITH_DEVICE Real<Type> to_real(Element<Type> value) {
    if constexpr (element_bytes<Type> == 2)
        return unpack_low<Type>(value);
    else
        return value;
}
template <class Type>
TILESMITH_DEVICE Element<Type> to_element(Real<Type> value) {
    if constexpr (element_bytes<Type> == 2)
        return to_16<Type>(value);
    else
        return value;
}

/// What is left of a value that is stored.
template <class Type>
TILESMITH_DEVICE Real<Type> rounded(Real<Type> value) {
    return to_real<Type>(to_element<Type>(value));
}

TILESMITH_DEVICE unsigned short load_element(const unsigned short* from) { return load_global_16(from); }
TILESMITH_DEVICE float load_element(const float* from) { return load_global_float(from); }
TILESMITH_DEVICE double load_element(const double* from) { return load_global_double(from); }
TILESMITH_DEVICE void store_element(unsigned short* to, unsigned short value) { store_global_16(to, value); }
TILESMITH_DEVICE void store_element(float* to, float value) { store_global_float(to, value); }
TILESMITH_DEVICE void store_element(double* to, double value) { store_global_double(to, value); }

/// What the kernel itself has stored: see load_stored_float.
TILESMITH_DEVICE float load_stored(const float* from) { return load_stored_float(from); }
TILESMITH_DEVICE double load_stored(const double* from) { return load_stored_double(from); }

/// An element in shared memory, as what a kernel computes in.
template <class Type>
TILESMITH_DEVICE Real<Type> load_shared_element(SharedAddress from) {
    if constexpr (element_bytes<Type> == 2)
        return to_real<Type>(load_shared_16(from));
    else if constexpr (element_bytes<Type> == 8)
        return load_shared_double(from);
    else
        return __uint_as_float(load_shared_32(from));
}
template <class Type>
TILESMITH_DEVICE void store_shared_element(SharedAddress to, Real<Type> value) {
    if constexpr (element_bytes<Type> == 2)
        store_shared_16(to, to_16<Type>(value));
    else if constexpr (element_bytes<Type> == 8)
        store_shared_double(to, value);
    else
        store_shared_32(to, __float_as_uint(value));
}

/// A float as a word that may be sent as a message: a NaN that looks like poison is another one.
TILESMITH_DEVICE unsigned as_message(float value) {
    const unsigned word = __float_as_uint(value);
    return word == poison ? poison - 1 : word;
}

/// The widest vector, in elements, of at most 16 bytes that divides every row of `head_dim` elements.
template <class Type>
TILESMITH_DEVICE constexpr int widest_vector(int head_dim) {
    const int most = 16 / element_bytes<Type>;
    return head_dim % most == 0 ? most : most > 2 && head_dim % (most / 2) == 0 ? most / 2 : most > 2 && head_dim % 2 == 0 ? 2 : 1;
}

}  // namespace tilesmith
