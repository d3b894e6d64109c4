// The library schedule, backward: what comes between two products of a library's. Launch n makes the gates' gradients of step
// T - 1 - n of every element from what the product of the step after sends back; launch T leaves the initial states' gradients.
#pragma once

#include "pointwise_step.cuh"

namespace tilesmith {

/// As BackwardArgumentsOf (recurrence.cuh), and between the launches of a pass:
template <class Word>
struct PointwiseBackwardArgumentsOf {
    const Word* b;
    const Word* initial;
    const Word* states;
    const Word* others;
    const Word* gates;
    const Word* d_states;
    const Word* d_last;
    const unsigned char* resets;
    const int* lengths;
    const int* order;
    Word* d_wx;
    Word* d_inputless;
    SumOf<Word>* d_b_partial;    // [B, G_bias without an input, H, D]
    Word* d_initial;
    Word* multiplied;            // [B, G_rec, H, D]: the gates' gradients, as the product reads them
    Word* hidden_before;         // [B, T, H, D]: h before every step, for the product that makes dR
    const SumOf<Word>* product;  // [B, H, D]: what R sends back to h
    SumOf<Word>* kept;           // [S, B, H, D]: what the step sends back itself; [2 S, ...] with resets: what they send to the
                                 // initial states
    int step;                    // the number of the launch
    int batch;
    int seq;
};
using PointwiseBackwardArguments = PointwiseBackwardArgumentsOf<unsigned short>;

/// known: how many states have gradients from outside.
template <class Cell, class Type, FixedShape shape, PointwiseTiling tiling, int known, Sequences sequences = Sequences{}>
struct LibraryBackward : PointwiseStep<Cell, Type, shape, tiling, sequences> {
    using Step = PointwiseStep<Cell, Type, shape, tiling, sequences>;
    using Step::gates, Step::states, Step::units, Step::at, Step::input_at;
    using typename Step::Word, typename Step::Number, typename Step::Numbers;
    static constexpr unsigned inputless_products = Cell::recurrent & ~Cell::input, inputless_biases = Cell::bias & ~Cell::input;

    const PointwiseBackwardArgumentsOf<Word>& in;

    TILESMITH_DEVICE explicit LibraryBackward(const PointwiseBackwardArgumentsOf<Word>& arguments) : in(arguments) {}

    TILESMITH_DEVICE Number* sent_at(int state) const { return in.kept + at(states + state, in.batch); }

    /// What the steps after step t send back to the states after it; t = -1: to the initial ones. A later step that begins
    /// anew has sent it to the initial states.
    TILESMITH_DEVICE void load_carried(Numbers (&carried)[states], int t, int end) const {
        if (t >= end - 1) {  // there is none
#pragma unroll
            for (int s = 0; s < states; ++s) {
                if (in.d_last == nullptr)
                    this->clear(carried[s]);
                else
                    this->load(carried[s], in.d_last + at(s, in.batch));
            }
            return;
        }
#pragma unroll
        for (int s = 0; s < states; ++s) this->template load_numbers<true>(carried[s], in.kept + at(s, in.batch));
        if (!Cell::recurrent_cut) {
            Numbers sent;
            this->load_numbers(sent, in.product + at(0, in.batch));
            this->add(carried[0], sent);
        }
        if (!this->begins_anew(in, t + 1)) return;
#pragma unroll
        for (int s = 0; s < states; ++s) {
            Numbers sum;
            this->template load_numbers<true>(sum, sent_at(s));
            this->add(sum, carried[s]);
            this->store_numbers(sent_at(s), sum);
            this->clear(carried[s]);
        }
    }

    TILESMITH_DEVICE void write_initial() const {
        Numbers carried[states];
        load_carried(carried, -1, this->end(in));
#pragma unroll
        for (int s = 0; s < states; ++s) {
            if (sequences.resets) {
                Numbers sent;
                this->template load_numbers<true>(sent, sent_at(s));
                this->add(carried[s], sent);
            }
            this->store(in.d_initial + at(s, in.batch), carried[s]);
        }
    }

    /// State s before step t.
    TILESMITH_DEVICE void load_before(Numbers& value, int s, int t) const {
        if (t == 0 || this->begins_anew(in, t))
            this->load_initial(value, in, s);
        else if (s > 0 && in.others != nullptr)
            this->load(value, in.others + at(s - 1, in.batch, t - 1, in.seq));
        else
            this->load(value, in.states + at(s, in.batch, t - 1, in.seq));
    }

    /// A gate's sum: as saved, or nothing but its bias.
    TILESMITH_DEVICE void load_gate(Numbers& sum, int gate, int t) const {
        if (has(Cell::saved, gate))
            this->load(sum, in.gates + at(rank_among(Cell::saved, gate), in.batch, t, in.seq));
        else
            this->load(sum, in.b + rank_among(Cell::bias, gate) * static_cast<long long>(Step::row) + this->column);
    }

    /// The gates' gradients of step t, and what the step sends back itself.
    TILESMITH_DEVICE void make(Numbers (&d_gate)[gates], Numbers (&carried)[states], const Numbers& h, int t, int end) const {
        Numbers gate[gates], state[states];
        load_carried(carried, t, end);
#pragma unroll
        for (int g = 0; g < gates; ++g) {
            if (has(Cell::backward_gates, g))
                load_gate(gate[g], g, t);
            else
                this->clear(gate[g]);
        }
#pragma unroll
        for (int s = 1; s < states; ++s) {
            if (has(Cell::backward_states, s))
                load_before(state[s], s, t);
            else
                this->clear(state[s]);
        }
#pragma unroll
        for (int i = 0; i < units; ++i) {
            state[0][i] = h[i];
            if (t < end - 1) carried[0][i] = Cell::recurrent_gradient(carried[0][i]);
        }
#pragma unroll
        for (int s = 0; s < known; ++s) {
            Numbers outside;
            this->load(outside, in.d_states + at(s, in.batch, t, in.seq));
            this->add(carried[s], outside);
        }
#pragma unroll
        for (int i = 0; i < units; ++i) {
            Number of_gates[gates], before[states], d_next[states], d_of_gates[gates], d_before[states];
#pragma unroll
            for (int g = 0; g < gates; ++g) of_gates[g] = gate[g][i];
#pragma unroll
            for (int s = 0; s < states; ++s) before[s] = state[s][i], d_next[s] = carried[s][i];
            typename Cell::Ready ready;
            Cell::prepare(of_gates, before, ready);
            Cell::backward(ready, d_next, d_of_gates, d_before);
#pragma unroll
            for (int g = 0; g < gates; ++g) d_gate[g][i] = d_of_gates[g];
#pragma unroll
            for (int s = 0; s < states; ++s) carried[s][i] = d_before[s];
        }
    }

    TILESMITH_DEVICE void write_gate(const Numbers& d_gate, int gate, int t, bool first) const {
        if (has(Cell::input, gate))
            this->store(in.d_wx + input_at(count_bits(Cell::input), rank_among(Cell::input, gate), t, in.seq), d_gate);
        if (has(inputless_products, gate))
            this->store(in.d_inputless + input_at(count_bits(inputless_products), rank_among(inputless_products, gate), t, in.seq), d_gate);
        if (has(Cell::recurrent, gate))
            this->store(in.multiplied + input_at(count_bits(Cell::recurrent), rank_among(Cell::recurrent, gate)), d_gate);
        if (has(inputless_biases, gate)) {
            Number* place = in.d_b_partial + input_at(count_bits(inputless_biases), rank_among(inputless_biases, gate));
            Numbers sum;
            this->clear(sum);
            if (!first) this->template load_numbers<true>(sum, place);
            this->add(sum, d_gate);
            this->store_numbers(place, sum);
        }
    }

    TILESMITH_DEVICE void run_step(int t) const {
        const int end = this->end(in);
        const bool runs = t < end, first = t == in.seq - 1;
        Numbers d_gate[gates], carried[states], h;
        if (first && sequences.resets) {
            this->clear(h);
#pragma unroll
            for (int s = 0; s < states; ++s) this->store_numbers(sent_at(s), h);
        }
        this->clear(h);
        if (runs) {
            load_before(h, 0, t);
            make(d_gate, carried, h, t, end);
        } else {
#pragma unroll
            for (int g = 0; g < gates; ++g) this->clear(d_gate[g]);
        }
        this->store(in.hidden_before + at(0, in.batch, t, in.seq), h);
#pragma unroll
        for (int g = 0; g < gates; ++g) write_gate(d_gate[g], g, t, first);
        if (!runs) return;
#pragma unroll
        for (int s = 0; s < states; ++s) this->store_numbers(in.kept + at(s, in.batch), carried[s]);
    }

    TILESMITH_DEVICE void run() const {
        if (this->sequence >= in.batch) return;
        if (in.step == in.seq)
            write_initial();
        else
            run_step(in.seq - 1 - in.step);
    }
};

}  // namespace tilesmith
