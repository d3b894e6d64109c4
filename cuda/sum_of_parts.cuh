// The gradients of R and b from those of parts of the steps, added in the order of the parts: the same bits every time.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

template <class Word>
struct SumOfPartsArgumentsOf {
    const SumOf<Word>* d_r_parts;  // [parts, G_rec, H, D, D]
    const SumOf<Word>* d_b_parts;  // [parts, G_bias, H, D], or null if no gate has a bias
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
    static constexpr long long of_gate = static_cast<long long>(shape.heads) * shape.head_dim;
    static constexpr long long d_r_elements = count_bits(Cell::recurrent) * of_gate * shape.head_dim;
    static constexpr long long d_b_elements = count_bits(Cell::bias) * of_gate;
    static constexpr long long elements = d_r_elements + d_b_elements;
    using Count = typename Either<fits_int(elements), int, long long>::Type;

    const SumOfPartsArgumentsOf<Element<Type>>& in;

    TILESMITH_DEVICE static void add(const Real<Type>* parts, Element<Type>* sums, long long size, Count at) {
        Real<Type> total = 0;
#pragma unroll
        for (int part = 0; part < tiling.parts; ++part) total += load_element(parts + part * size + at);
        store_element(sums + at, to_element<Type>(total));
    }

    TILESMITH_DEVICE void run() {
        const Count at = static_cast<Count>(block_x()) * threads + static_cast<int>(thread_index());
        if (at < d_r_elements)
            add(in.d_r_parts, in.d_r, d_r_elements, at);
        else if (at < elements)
            add(in.d_b_parts, in.d_b, d_b_elements, at - d_r_elements);
    }
};

}  // namespace tilesmith
