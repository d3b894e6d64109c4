// h before every step, from h after every step: what a library's product takes that makes dR.
#pragma once

#include "pointwise_step.cuh"

namespace tilesmith {

template <class Word>
struct HiddenBeforeArgumentsOf {
    const Word* hidden;           // [B, T, H, D]
    const Word* initial;          // [B, H, D]: h before the first step, or null: zeros
    const unsigned char* resets;  // [B, T]: 1 where h before a step is that again; or null, see Sequences
    Word* hidden_before;          // [B, T, H, D]
    int batch;
    int seq;
};
using HiddenBeforeArguments = HiddenBeforeArgumentsOf<unsigned short>;

/// A thread for each `units` neighbouring units of a step.
template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, Sequences sequences = Sequences{}>
struct HiddenBefore {
    using Word = Element<Type>;
    static constexpr int threads = 256, units = tiling.units, shared_bytes = 0;
    static constexpr int row = shape.heads * shape.head_dim;
    static_assert(row % units == 0, "threads share no step's end");

    const HiddenBeforeArgumentsOf<Word>& in;

    TILESMITH_DEVICE explicit HiddenBefore(const HiddenBeforeArgumentsOf<Word>& arguments) : in(arguments) {}

    TILESMITH_DEVICE void run() const {
        const long long at = static_cast<long long>(block_x()) * threads + static_cast<int>(thread_index());
        const long long step = at / (row / units);
        const int place = static_cast<int>(at % (row / units)) * units;
        const int sequence = static_cast<int>(step / in.seq);
        if (sequence >= in.batch) return;
        bool begins = step % in.seq == 0;
        if constexpr (sequences.resets) begins = begins || load_global_8(in.resets + step) != 0;
        ElementVector<Word, units> found;
#pragma unroll
        for (int i = 0; i < units; ++i) found.words[i] = 0;
        if (!begins)
            found.template load<false>(in.hidden + (step - 1) * row + place);
        else if (in.initial != nullptr)
            found.template load<false>(in.initial + static_cast<long long>(sequence) * row + place);
        found.store(in.hidden_before + step * row + place);
    }
};

}  // namespace tilesmith
