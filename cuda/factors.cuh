// What matrix instructions multiply, by type: one instruction takes 32 bytes of k of each operand, in the same registers for
// all types. 16-bit words go in as they are. Of floats tensor cores take TF32 alone, 11 bits of significand: either the
// nearest such number (tf32), or two for each float, in three products (fp32). Doubles go in as they are (fp64).
#pragma once

#include "elements.cuh"

namespace tilesmith {

/// k that an instruction adds up: 16 of 16 bits, 8 floats, 4 doubles.
template <class Type>
inline constexpr int product_depth = 32 / element_bytes<Type>;

/// Whether tensor cores take TF32, and doubles; else lanes multiply what they have, and hand it on to each other.
inline constexpr bool multiply_tf32 = architecture >= 80, multiply_doubles = architecture >= 80;

/// d += a x b by ordinary multiply-adds: 16 rows, 8 columns, 4 k for each word of b. Operands lie as tensor cores have them: of a
/// k = j of rows g and g + 8, of b k = j of column g, then the same of k = j + 4.
template <class Number, int depth>
TILESMITH_DEVICE void multiply_add_by_lanes(Number (&d)[4], const Number (&a)[depth / 2], const Number (&b)[depth / 4]) {
    const int lane = static_cast<int>(thread_index() % 32), j = lane % 4;
#pragma unroll
    for (int part = 0; part < depth / 4; ++part)
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const Number upper = shuffle(a[2 * part], lane - j + k), lower = shuffle(a[2 * part + 1], lane - j + k);
            const Number left = shuffle(b[part], 8 * j + k), right = shuffle(b[part], 8 * j + 4 + k);
            d[0] += upper * left, d[1] += upper * right;
            d[2] += lower * left, d[3] += lower * right;
        }
}

/// The same of words that hold floats.
TILESMITH_DEVICE void multiply_add_by_lanes(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const float rows[4] = {__uint_as_float(a[0]), __uint_as_float(a[1]), __uint_as_float(a[2]), __uint_as_float(a[3])};
    const float columns[2] = {__uint_as_float(b[0]), __uint_as_float(b[1])};
    multiply_add_by_lanes<float, 8>(d, rows, columns);
}

/// A word of an operand that is multiplied once: in TF32 the nearest number, of whose bits the lower 13 mean nothing.
template <class Type>
TILESMITH_DEVICE unsigned factor(unsigned word) { return word; }
template <>
TILESMITH_DEVICE unsigned factor<tf32>(unsigned word) {
    if constexpr (!multiply_tf32) return round_tf32(word);
    return (word & 0x7fffffffu) < 0x7f800000u ? word + 0x1000u : word;  // neither infinity nor NaN
}

/// The bits of a float that tensor cores take.
inline constexpr unsigned factor_bits = 0xffffe000u;

/// What a float is larger by, towards zero, than what tensor cores take of it: exact. Of a NaN a NaN, of an infinity too.
TILESMITH_DEVICE unsigned rest_of_factor(unsigned word, unsigned bits = factor_bits) {
    return __float_as_uint(__uint_as_float(word) - __uint_as_float(word & bits));
}

/// d = a x b + c, of such words.
template <class Type>
TILESMITH_DEVICE void multiply_words(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4]) {
    if constexpr (element_bytes<Type> == 2) {
        mma_m16n8k16<Type>(d, a, b0, b1, c);
    } else if constexpr (multiply_tf32) {
        mma_m16n8k8_tf32(d, a, b0, b1, c);
    } else {
        const unsigned b[2] = {b0, b1};
        float sums[4] = {c[0], c[1], c[2], c[3]};
        multiply_add_by_lanes(sums, a, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) d[i] = sums[i];
    }
}

/// Words of an operand, from words in memory.
template <class Type, int count>
struct Factors {
    unsigned words[count];
    TILESMITH_DEVICE void set(int i, unsigned word) { words[i] = word; }
};

template <int count>
struct Factors<tf32, count> {
    unsigned words[count];
    TILESMITH_DEVICE void set(int i, unsigned word) { words[i] = round_tf32(word); }
};

/// A float as the sum of two numbers that tensor cores take as TF32, which leave 2^-21 of it at most. An infinity
/// becomes a NaN; a NaN stays one, in `low`.
template <int count>
struct Factors<fp32, count> {
    unsigned high[count], low[count];
    TILESMITH_DEVICE void set(int i, unsigned word) {
        high[i] = multiply_tf32 ? (word + 0x1000u) & 0xffffe000u : word;  // to nearest
        low[i] = __float_as_uint(__uint_as_float(word) - __uint_as_float(high[i]));  // exact, but for what is cut of it
    }
};

/// Doubles go in as they are, one where others have two words.
template <int count>
struct Factors<fp64, count> {
    double values[count / 2];
    TILESMITH_DEVICE void set(int i, double value) { values[i] = value; }
};

/// Whether sums stay in tensor cores, where several accumulators make instructions independent of each other.
template <class Type>
inline constexpr bool sums_in_tensor_cores = true;
template <>
inline constexpr bool sums_in_tensor_cores<fp32> = false;
template <>
inline constexpr bool sums_in_tensor_cores<fp64> = false;  // two instructions for a tile are independent, and doubles are large

/// d += a x b: 16 rows, 8 columns.
template <class Type>
TILESMITH_DEVICE void multiply_add(float (&d)[4], const Factors<Type, 4>& a, const Factors<Type, 2>& b) {
    mma_m16n8k16<Type>(d, a.words, b.words[0], b.words[1], d);
}
TILESMITH_DEVICE void multiply_add(float (&d)[4], const Factors<tf32, 4>& a, const Factors<tf32, 2>& b) {
    if constexpr (multiply_tf32)
        mma_m16n8k8_tf32(d, a.words, b.words[0], b.words[1], d);
    else
        multiply_add_by_lanes(d, a.words, b.words);
}

/// Three products for one. Tensor cores cut what they add up, always towards zero; what 8 k make is therefore added to the
/// sums outside.
TILESMITH_DEVICE void multiply_add(float (&d)[4], const Factors<fp32, 4>& a, const Factors<fp32, 2>& b) {
    if constexpr (!multiply_tf32) return multiply_add_by_lanes(d, a.high, b.high);
    const float zeros[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    float product[4];
    mma_m16n8k8_tf32(product, a.low, b.high[0], b.high[1], zeros);
    mma_m16n8k8_tf32(product, a.high, b.low[0], b.low[1], product);
    mma_m16n8k8_tf32(product, a.high, b.high[0], b.high[1], product);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += product[i];
}

/// Rows g, then rows g + 8.
TILESMITH_DEVICE void multiply_add(double (&d)[4], const Factors<fp64, 4>& a, const Factors<fp64, 2>& b) {
    if constexpr (!multiply_doubles) return multiply_add_by_lanes<double, 4>(d, a.values, b.values);
    mma_m8n8k4_f64(d[0], d[1], a.values[0], b.values[0]);
    mma_m8n8k4_f64(d[2], d[3], a.values[1], b.values[0]);
}

/// The same for a matrix b of ones: what is added up of each row.
template <class Type>
TILESMITH_DEVICE void add_up(Real<Type> (&d)[4], const Factors<Type, 4>& a) {
    Factors<Type, 2> ones;
    if constexpr (element_bytes<Type> == 8) {
        ones.set(0, 1.0);
    } else {
        ones.set(0, __float_as_uint(1.0f));
        ones.set(1, __float_as_uint(1.0f));
    }
    multiply_add(d, a, ones);
}

}  // namespace tilesmith
