// The library schedule, forward: what comes between two products of a library's. Launch 0 lays out what the first product
// multiplies; launch t + 1 makes step t of every element from the product, and lays out the next one's h.
#pragma once

#include "pointwise_step.cuh"

namespace tilesmith {

/// As ForwardArgumentsOf (recurrence.cuh), and between the launches of a pass:
template <class Word>
struct PointwiseForwardArgumentsOf {
    const Word* wx;
    const Word* b;
    const Word* initial;
    const unsigned char* resets;
    const int* lengths;
    const int* order;
    Word* states;
    Word* others;
    Word* last;
    Word* gates;
    Word* multiplied;             // [B, H, D]: h before the next step, as the product reads it
    const SumOf<Word>* product;   // [B, G_rec, H, D]: R h
    SumOf<Word>* kept;            // [S - 1, B, H, D]: the other states before the next step
    int step;                     // the number of the launch
    int batch;
    int seq;
};
using PointwiseForwardArguments = PointwiseForwardArgumentsOf<unsigned short>;

template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, Save save, Sequences sequences = Sequences{}>
struct LibraryForward : PointwiseStep<Cell, Type, shape, tiling, sequences> {
    using Step = PointwiseStep<Cell, Type, shape, tiling, sequences>;
    using Step::gates, Step::states, Step::units, Step::at, Step::input_at;
    using typename Step::Word, typename Step::Number, typename Step::Numbers;

    const PointwiseForwardArgumentsOf<Word>& in;

    TILESMITH_DEVICE explicit LibraryForward(const PointwiseForwardArgumentsOf<Word>& arguments) : in(arguments) {}

    /// What the first product multiplies, and what is left of sequences without a step.
    TILESMITH_DEVICE void begin() const {
#pragma unroll
        for (int s = 0; s < states; ++s) {
            Numbers value;
            this->load_initial(value, in, s);
            if (s == 0)
                this->store(in.multiplied + at(0, in.batch), value);
            else
                this->store_numbers(in.kept + at(s - 1, in.batch), value);
            if (this->end(in) == 0) this->store(in.last + at(s, in.batch), value);
        }
    }

    /// The states before step t.
    TILESMITH_DEVICE void load_states(Numbers (&state)[states], int t) const {
        this->template load<true>(state[0], in.multiplied + at(0, in.batch));
        const bool anew = this->begins_anew(in, t);
#pragma unroll
        for (int s = 1; s < states; ++s) {
            if (anew)
                this->load_initial(state[s], in, s);
            else
                this->template load_numbers<true>(state[s], in.kept + at(s - 1, in.batch));
        }
    }

    TILESMITH_DEVICE void load_gate(Numbers& sum, int gate, int t) const {
        this->clear(sum);
        Numbers term;
        if (has(Cell::bias, gate)) this->load(sum, in.b + rank_among(Cell::bias, gate) * static_cast<long long>(Step::row) + this->column);
        if (has(Cell::input, gate)) {
            this->load(term, in.wx + input_at(count_bits(Cell::input), rank_among(Cell::input, gate), t, in.seq));
            this->add(sum, term);
        }
        if (has(Cell::recurrent, gate)) {
            this->load_numbers(term, in.product + input_at(count_bits(Cell::recurrent), rank_among(Cell::recurrent, gate)));
            this->add(sum, term);
        }
    }

    TILESMITH_DEVICE void write_results(const Numbers (&next)[states], const Numbers (&gate)[gates], int t) const {
        const long long elements = static_cast<long long>(in.batch) * in.seq * Step::row, place = at(0, in.batch, t, in.seq);
#pragma unroll
        for (int s = 0; s < (save == Save::hidden ? 1 : states); ++s)
            this->store(result_array(s, elements) + place, next[s]);
#pragma unroll
        for (int q = 0; q < gates; ++q)
            if (save == Save::gates && has(Cell::saved, q))
                this->store(in.gates + rank_among(Cell::saved, q) * elements + place, gate[q]);
    }
    TILESMITH_DEVICE Word* result_array(int state, long long elements) const {
        return state > 0 && in.others != nullptr ? in.others + (state - 1) * elements : in.states + state * elements;
    }

    TILESMITH_DEVICE void run_step(int t) const {
        const int end = this->end(in);
        const bool runs = t < end;
        Numbers state[states], gate[gates], next[states];
        if (runs) {
            load_states(state, t);
#pragma unroll
            for (int g = 0; g < gates; ++g) load_gate(gate[g], g, t);
#pragma unroll
            for (int i = 0; i < units; ++i) {
                Number of_gates[gates], before[states], after[states];
#pragma unroll
                for (int g = 0; g < gates; ++g) of_gates[g] = gate[g][i];
#pragma unroll
                for (int s = 0; s < states; ++s) before[s] = state[s][i];
                Cell::step(of_gates, before, after);
#pragma unroll
                for (int s = 0; s < states; ++s) next[s][i] = after[s];
            }
        } else {
#pragma unroll
            for (int s = 0; s < states; ++s) this->clear(next[s]);
#pragma unroll
            for (int g = 0; g < gates; ++g) this->clear(gate[g]);
        }
        write_results(next, gate, t);
        if (!runs) return;
        if (t == end - 1) {
#pragma unroll
            for (int s = 0; s < states; ++s) this->store(in.last + at(s, in.batch), next[s]);
            return;
        }
        if (this->begins_anew(in, t + 1)) this->load_initial(next[0], in, 0);
        this->store(in.multiplied + at(0, in.batch), next[0]);
#pragma unroll
        for (int s = 1; s < states; ++s) this->store_numbers(in.kept + at(s - 1, in.batch), next[s]);
    }

    TILESMITH_DEVICE void run() const {
        if (this->sequence >= in.batch) return;
        if (in.step == 0)
            begin();
        else
            run_step(in.step - 1);
    }
};

}  // namespace tilesmith
