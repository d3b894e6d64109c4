// What kernels share that make one step of the elements of all sequences, a launch a step, between products that a library
// makes: which elements a thread has, and how vectors of them travel.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

struct PointwiseTiling {
    int units;  // of a thread, one beside another in a row
};

/// Consecutive elements of `Word` that travel together.
template <class Word, int count>
struct ElementVector {
    static constexpr int bytes = count * static_cast<int>(sizeof(Word));
    static constexpr int part_bytes = bytes < 16 ? bytes : 16;  // that one access moves
    static constexpr int parts = bytes / part_bytes;
    union {
        Word words[count];
        unsigned short halves[parts * part_bytes / 2];
        unsigned fours[ceil_div(bytes, 4)];
    };

    /// stored: whether earlier launches, or this thread, have written it; else it does not change.
    template <bool stored>
    TILESMITH_DEVICE void load(const Word* from) {
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            const char* at = reinterpret_cast<const char*>(from) + part * part_bytes;
            if constexpr (part_bytes == 16) {
                const uint4 found = stored ? load_stored_128(at) : load_global_128(at);
                fours[4 * part] = found.x, fours[4 * part + 1] = found.y, fours[4 * part + 2] = found.z, fours[4 * part + 3] = found.w;
            } else if constexpr (part_bytes == 8) {
                const uint2 found = stored ? load_stored_64(at) : load_global_64(at);
                fours[0] = found.x, fours[1] = found.y;
            } else if constexpr (part_bytes == 4) {
                fours[0] = stored ? load_stored_32(at) : load_global_32(at);
            } else {
                halves[0] = stored ? load_stored_16(at) : load_global_16(at);
            }
        }
    }
    TILESMITH_DEVICE void store(Word* to) const {
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            char* at = reinterpret_cast<char*>(to) + part * part_bytes;
            if constexpr (part_bytes == 16)
                store_global_128(at, uint4{fours[4 * part], fours[4 * part + 1], fours[4 * part + 2], fours[4 * part + 3]});
            else if constexpr (part_bytes == 8)
                store_global_64(at, uint2{fours[0], fours[1]});
            else if constexpr (part_bytes == 4)
                store_global_32(at, fours[0]);
            else
                store_global_16(at, halves[0]);
        }
    }
};

/// A thread has `units` neighbouring units of one sequence. Rows are [head][unit].
template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, Sequences sequences>
struct PointwiseStep {
    static constexpr int threads = 256, shared_bytes = 0;
    static constexpr int gates = Cell::gates, states = Cell::states, units = tiling.units;
    static constexpr int row = shape.heads * shape.head_dim, row_threads = row / units;
    static_assert(row % units == 0, "threads share no row's end");
    using Word = Element<Type>;
    using Number = Real<Type>;
    using Numbers = Number[units];

    const long long thread = static_cast<long long>(block_x()) * threads + static_cast<int>(thread_index());
    const int sequence = static_cast<int>(thread / row_threads);
    const int column = static_cast<int>(thread % row_threads) * units;

    /// Where [slice, sequence, t, column] lies in an array of `seq` steps.
    TILESMITH_DEVICE long long at(long long slice, int batch, int t = 0, int seq = 1) const {
        return ((slice * batch + sequence) * seq + t) * row + column;
    }
    /// Where [sequence, t, slice, column] lies in an array of `slices`.
    TILESMITH_DEVICE long long input_at(int slices, int slice, int t = 0, int seq = 1) const {
        return ((static_cast<long long>(sequence) * seq + t) * slices + slice) * row + column;
    }

    TILESMITH_DEVICE static void clear(Numbers& values) {
#pragma unroll
        for (int i = 0; i < units; ++i) values[i] = 0;
    }
    TILESMITH_DEVICE static void add(Numbers& sum, const Numbers& term) {
#pragma unroll
        for (int i = 0; i < units; ++i) sum[i] += term[i];
    }
    /// Elements of an array that does not change; `stored`: of one that this kernel writes.
    template <bool stored = false>
    TILESMITH_DEVICE static void load(Numbers& values, const Word* from) {
        ElementVector<Word, units> found;
        found.template load<stored>(from);
#pragma unroll
        for (int i = 0; i < units; ++i) values[i] = to_real<Type>(found.words[i]);
    }
    TILESMITH_DEVICE static void store(Word* to, const Numbers& values) {
        ElementVector<Word, units> made;
#pragma unroll
        for (int i = 0; i < units; ++i) made.words[i] = to_element<Type>(values[i]);
        made.store(to);
    }
    template <bool stored = false>
    TILESMITH_DEVICE static void load_numbers(Numbers& values, const Number* from) {
        ElementVector<Number, units> found;
        found.template load<stored>(from);
#pragma unroll
        for (int i = 0; i < units; ++i) values[i] = found.words[i];
    }
    TILESMITH_DEVICE static void store_numbers(Number* to, const Numbers& values) {
        ElementVector<Number, units> made;
#pragma unroll
        for (int i = 0; i < units; ++i) made.words[i] = values[i];
        made.store(to);
    }

    /// How many steps the sequence has; and whether its states before step t are the initial ones again.
    template <class Arguments>
    TILESMITH_DEVICE int end(const Arguments& in) const {
        if constexpr (sequences.lengths) return minimum(static_cast<int>(load_global_32(in.lengths + sequence)), in.seq);
        return in.seq;
    }
    template <class Arguments>
    TILESMITH_DEVICE bool begins_anew(const Arguments& in, int t) const {
        if constexpr (sequences.resets)
            return load_global_8(in.resets + static_cast<long long>(sequence) * in.seq + t) != 0;
        return false;
    }

    /// An initial state; zeros where none are given.
    template <class Arguments>
    TILESMITH_DEVICE void load_initial(Numbers& values, const Arguments& in, int state) const {
        if (in.initial == nullptr)
            clear(values);
        else
            load(values, in.initial + at(state, in.batch));
    }
};

}  // namespace tilesmith
