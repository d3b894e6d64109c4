// What a block of the wide schedule's backward pass reads and writes in a step: saved values and gradients from outside come to
// [array][unit / 8][sequence][8 units] in shared memory, a chunk of 16 bytes between the rows; the gates' gradients lie in
// [gate][unit / 8][sequence][8 units], as wgmma reads them, those that it multiplies first.
#pragma once

#include "gradient_step.cuh"
#include "recurrence.cuh"
#include "sequences.cuh"

namespace tilesmith {

/// blocks: that share a head. rows: sequences of a block. state_gradients: how many states have gradients from outside.
template <class Cell, class Type, FixedShape shape, int blocks, int rows, int threads, int state_gradients, Sequences sequences>
struct WideBackwardTransfers {
    // ---- sizes ----
    using Gradients = GradientArrays<Cell, state_gradients>;
    static constexpr int D = shape.head_dim, units = D / blocks;  // of a block
    static constexpr int chunks = units / 8;                      // rows of 8 units
    static constexpr int input_gates = count_bits(Cell::input);
    static constexpr int products = count_bits(Cell::recurrent);
    static constexpr unsigned stored = Gradients::stored;
    static constexpr int results = count_bits(stored), arrays = Gradients::arrays;

    // ---- shared memory: the gates' gradients, what a step reads, what is known of the sequences ----
    static constexpr int result_row = rows * chunk_bytes;  // of 8 units
    static constexpr int result_bytes = chunks * result_row;
    static constexpr int input_row = (rows + 1) * chunk_bytes;  // no bank conflicts across rows of 8 units
    static constexpr int plane_bytes = chunks * input_row;
    static constexpr int inputs_at = results * result_bytes;
    static constexpr int own_at = inputs_at + arrays * plane_bytes;
    using Own = StepSequences<sequences, rows>;
    static constexpr int transfer_bytes = own_at + Own::bytes;

    // ---- the thread's place ----
    const BackwardArguments& in;
    const int thread = static_cast<int>(thread_index());
    const int rank = static_cast<int>(block_x()) % blocks;
    const int head = static_cast<int>(block_x()) / blocks;
    const SharedAddress shared = shared_memory();
    const int first_unit = rank * units;
    const int first_row = static_cast<int>(block_y()) * rows;
    Own own_of_rows{shared + own_at};

    TILESMITH_DEVICE explicit WideBackwardTransfers(const BackwardArguments& in) : in(in) {}

    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        const int gate = nth_bit(stored, array);  // first those that are multiplied
        const int plane = has(Cell::recurrent, gate) ? rank_among(Cell::recurrent, gate)
                                                     : products + rank_among(stored & ~Cell::recurrent, gate);
        return shared + plane * result_bytes + unit / 8 * result_row + row * chunk_bytes + unit % 8 * 2;
    }
    /// The sequence at a place of the batch; past its end any will do.
    TILESMITH_DEVICE int sequence_of(int place) const { return sequence_at<sequences>(in, minimum(place, in.batch - 1)); }

    /// Ask for what step t reads: gates' sums, states before it, gradients from outside. Before step 0, and where a sequence begins
    /// anew, lie the initial states.
    TILESMITH_DEVICE void load_inputs(int t) const {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
#pragma unroll 1
        for (int vector = opaque(thread); vector < rows * chunks; vector += threads) {
            const int row = vector / chunks, unit = first_unit + vector % chunks * 8;
            const SharedAddress to = shared + inputs_at + vector % chunks * input_row + row * chunk_bytes;
            const long long sequence = sequence_of(first_row + row);
            const long long at = ((sequence * in.seq + t) * shape.heads + head) * D + unit;
            const bool begins = t == 0 || own_of_rows.begins(row);
#pragma unroll
            for (int array = 0; array < arrays; ++array) {
                const int state = array - Gradients::read_gates, gradient = state - Gradients::read_states;
                const unsigned short* from = in.gates + array * array_elements + at;
                bool real = true;
                if (gradient >= 0) {
                    from = in.d_states + gradient * array_elements + at;
                } else if (state >= 0) {
                    const int s = nth_bit(Cell::backward_states, state);
                    real = !begins || in.initial != nullptr;
                    if (begins)
                        from = in.initial + ((s * static_cast<long long>(in.batch) + sequence) * shape.heads + head) * D + unit;
                    else
                        from = (s > 0 && in.others != nullptr ? in.others + (s - 1) * array_elements : in.states + s * array_elements) + at - shape.heads * D;
                }
                cp_async_or_zeros<16>(to + array * plane_bytes, from, real);
            }
        }
        cp_async_commit();
    }

    /// Where the gradient of a gate goes of a step, counted through all sequences.
    TILESMITH_DEVICE unsigned short* output_at(int array, long long step) const {
        constexpr int inputless = count_bits(Gradients::inputless_products);
        const int gate = nth_bit(stored, array);
        const bool input = inputless == 0 || has(Cell::input, gate);
        const long long at =
            input ? step * input_gates + rank_among(Cell::input, gate) : step * inputless + rank_among(Gradients::inputless_products, gate);
        return (input ? in.d_wx : in.d_inputless) + (at * shape.heads + head) * D + first_unit;
    }
    /// The calling thread's share of the vectors of 8 units of each array: function(array, row, chunk). Two rows of 8 units follow each
    /// other, so that 32 bytes are written together.
    template <class Function>
    TILESMITH_DEVICE void for_each_result(Function function) const {
#pragma unroll
        for (int array = 0; array < results; ++array)
            for (int vector = opaque(thread); vector < rows * chunks; vector += threads)
                function(array, vector / 2 % rows, vector / (2 * rows) * 2 + vector % 2);
    }
    TILESMITH_DEVICE void write_results(int t) const {
        for_each_result([&](int array, int row, int chunk) {
            if (first_row + row >= in.batch) return;
            const long long step = static_cast<long long>(sequence_of(first_row + row)) * in.seq + t;
            copy_to_global<16>(output_at(array, step) + 8 * chunk, result_at(array, row, 8 * chunk));
        });
    }
    /// Write zeros for the steps from `t` on.
    TILESMITH_DEVICE void write_rest(int t) const {
        for (; t < in.seq; ++t)
            for_each_result([&](int array, int row, int chunk) {
                if (first_row + row >= in.batch) return;
                zero_global<16>(output_at(array, static_cast<long long>(sequence_of(first_row + row)) * in.seq + t) + 8 * chunk);
            });
    }
};

}  // namespace tilesmith
