// The gradients of R and b from those of parts of the steps, added in the order of the parts: the same bits every time.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

template <class Word>
struct SumOfPartsArgumentsOf {
    const float* d_r_parts;  // [parts, G_rec, H, D, D]
    const float* d_b_parts;  // [parts, G_bias, H, D], or null if no gate has a bias
    Word* d_r;               // [G_rec, H, D, D]
    Word* d_b;               // [G_bias, H, D], or null likewise
};
using SumOfPartsArguments = SumOfPartsArgumentsOf<unsigned short>;

struct SumOfPartsTiling {
    int parts;
};

/// A thread for each element of d_r and then of d_b.
template <class Cell, class Type, FixedShape shape, SumOfPartsTiling tiling>
struct SumOfParts {
    static constexpr int threads = 256;
    static constexpr int d_r_elements = count_bits(Cell::recurrent) * shape.heads * shape.head_dim * shape.head_dim;
    static constexpr int d_b_elements = count_bits(Cell::bias) * shape.heads * shape.head_dim;
    static constexpr int elements = d_r_elements + d_b_elements;

    const SumOfPartsArgumentsOf<Element<Type>>& in;

    TILESMITH_DEVICE static void add(const float* parts, Element<Type>* sums, long long size, int at) {
        float total = 0.0f;
#pragma unroll
        for (int part = 0; part < tiling.parts; ++part) total += load_global_float(parts + part * size + at);
        store_element(sums + at, to_element<Type>(total));
    }

    TILESMITH_DEVICE void run() {
        const int at = static_cast<int>(block_x()) * threads + static_cast<int>(thread_index());
        if (at < d_r_elements)
            add(in.d_r_parts, in.d_r, d_r_elements, at);
        else if (at < elements)
            add(in.d_b_parts, in.d_b, d_b_elements, at - d_r_elements);
    }
};

}  // namespace tilesmith
