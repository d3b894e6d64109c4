// Dropout: elements that stay times a scale, zeros for the others, by a mask of bytes that somebody has drawn.
#pragma once

#include "elements.cuh"

namespace tilesmith {

template <class Type>
struct DroppedElements {
    static constexpr int threads = 256;

    const Element<Type>* from;
    const unsigned char* mask;
    Element<Type>* to;  // may be `from`
    long long count;
    Real<Type> scale;

    /// A thread takes an element: kernelgen/schedules/shared/dropped_elements.py launches one for each.
    TILESMITH_DEVICE void run() const {
        const long long at = static_cast<long long>(block_x()) * threads + static_cast<long long>(thread_index());
        if (at >= count) return;
        const Real<Type> value = to_real<Type>(load_element(from + at));
        store_element(to + at, to_element<Type>(load_global_8(mask + at) != 0 ? value * scale : 0));
    }
};

}  // namespace tilesmith
