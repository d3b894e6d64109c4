// The naive schedule: one block for each head and a few sequences, one thread for each unit, R read from memory in every
// step. Slow, short and right; see docs/tutorials/add_a_schedule.md.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

struct NaiveTiling {
    int sequences;  // that a block runs, one after another
};

/// What both directions share.
template <class Cell, class Type, FixedShape shape, NaiveTiling tiling>
struct NaiveBlock {
    using Number = Real<Type>;  // what it computes in
    static constexpr int number_bytes = static_cast<int>(sizeof(Number));
    static constexpr int D = shape.head_dim;
    static constexpr int gates = Cell::gates, states = Cell::states;
    static constexpr int threads = ceil_div(D, 32) * 32;

    const int unit = static_cast<int>(thread_index());
    const int head = static_cast<int>(block_x());
    const int group = static_cast<int>(block_y());
    const bool real = unit < D;
    const SharedAddress shared = shared_memory();

    /// Where [slice, b, t, head, unit] lies in an array of `seq` steps.
    TILESMITH_DEVICE long long at(long long slice, long long batch, int b, long long seq, int t) const {
        return (((slice * batch + b) * seq + t) * shape.heads + head) * D + unit;
    }
    /// Where [b, t, slice, head, unit] lies in an array of `slices`.
    TILESMITH_DEVICE long long input_at(int slices, int slice, int b, long long seq, int t) const {
        return (((b * seq + t) * slices + slice) * shape.heads + head) * D + unit;
    }
    TILESMITH_DEVICE Number load(const Element<Type>* array, long long index) const {
        return real ? to_real<Type>(load_element(array + index)) : 0.0f;
    }
    TILESMITH_DEVICE void store(Element<Type>* array, long long index, Number value) const {
        if (real) store_element(array + index, to_element<Type>(value));
    }
    TILESMITH_DEVICE static Number rounded(Number value) { return tilesmith::rounded<Type>(value); }

    /// A sum in shared memory.
    TILESMITH_DEVICE static Number kept_sum(SharedAddress at) {
        if constexpr (number_bytes == 8)
            return load_shared_double(at);
        else
            return __uint_as_float(load_shared_32(at));
    }
    TILESMITH_DEVICE static void keep_sum(SharedAddress at, Number sum) {
        if constexpr (number_bytes == 8)
            store_shared_double(at, sum);
        else
            store_shared_32(at, __float_as_uint(sum));
    }

    /// A row of values in shared memory, one from each unit.
    TILESMITH_DEVICE void share(int row, Number value) const {
        if (real) store_shared_element<Type>(shared + element_bytes<Type> * (row * D + unit), value);
    }
    TILESMITH_DEVICE Number shared_value(int row, int other) const {
        return load_shared_element<Type>(shared + element_bytes<Type> * (row * D + other));
    }
    /// An element of R: from unit `from` to unit `to`, of the gate whose rank among those with a product is given.
    TILESMITH_DEVICE Number weight(const Element<Type>* r, int rank, int to, int from) const {
        return to_real<Type>(load_element(r + ((static_cast<long long>(rank) * shape.heads + head) * D + to) * D + from));
    }

    /// A gate's sum, from h in the first shared row.
    TILESMITH_DEVICE Number sum(int gate, const Element<Type>* wx, const Element<Type>* r, const Element<Type>* bias, int b, long long seq, int t) const {
        Number total = 0.0f;
        if (has(Cell::bias, gate)) total += load(bias, at(rank_among(Cell::bias, gate), 1, 0, 1, 0));
        if (has(Cell::input, gate)) total += load(wx, input_at(count_bits(Cell::input), rank_among(Cell::input, gate), b, seq, t));
        if (has(Cell::recurrent, gate) && real)
            for (int other = 0; other < D; ++other)
                total += weight(r, rank_among(Cell::recurrent, gate), unit, other) * shared_value(0, other);
        return total;
    }
};

template <class Cell, class Type, FixedShape shape, NaiveTiling tiling, Save save>
struct Naive : NaiveBlock<Cell, Type, shape, tiling> {
    using Block = NaiveBlock<Cell, Type, shape, tiling>;
    using Block::gates, Block::states, Block::D;
    using typename Block::Number;
    static constexpr int shared_bytes = ceil_div(element_bytes<Type> * D, chunk_bytes) * chunk_bytes;  // h
    const ForwardArgumentsOf<Element<Type>>& in;

    TILESMITH_DEVICE explicit Naive(const ForwardArgumentsOf<Element<Type>>& arguments) : in(arguments) {}

    TILESMITH_DEVICE void write_states(int b, int t, const Number (&state)[states]) const {
#pragma unroll
        for (int s = 0; s < states; ++s) {
            if (s > 0 && save == Save::hidden) break;
            Element<Type>* array = s > 0 && in.others != nullptr ? in.others : in.states;
            this->store(array, this->at(array == in.states ? s : s - 1, in.batch, b, in.seq, t), state[s]);
        }
    }

    TILESMITH_DEVICE void run_sequence(int b) {
        Number state[states], gate[gates], next[states];
#pragma unroll
        for (int s = 0; s < states; ++s)
            state[s] = in.initial == nullptr ? 0.0f : this->load(in.initial, this->at(s, in.batch, b, 1, 0));
        for (int t = 0; t < in.seq; ++t) {
            this->share(0, state[0]);
            sync_block();  // h is there
#pragma unroll
            for (int g = 0; g < gates; ++g) {
                gate[g] = this->sum(g, in.wx, in.r, in.b, b, in.seq, t);
                if (save == Save::gates && has(Cell::saved, g))
                    this->store(in.gates, this->at(rank_among(Cell::saved, g), in.batch, b, in.seq, t), gate[g]);
            }
            sync_block();  // h is read
            Cell::step(gate, state, next);
#pragma unroll
            for (int s = 0; s < states; ++s) state[s] = s == 0 ? this->rounded(next[0]) : next[s];
            write_states(b, t, state);
        }
#pragma unroll
        for (int s = 0; s < states; ++s) this->store(in.last, this->at(s, in.batch, b, 1, 0), state[s]);
    }

    TILESMITH_DEVICE void run() {
        const int first = this->group * tiling.sequences;
        for (int b = first; b < minimum(first + tiling.sequences, in.batch); ++b) run_sequence(b);
    }
};

template <class Cell, class Type, FixedShape shape, NaiveTiling tiling, int known, Gates source>
struct NaiveBackward : NaiveBlock<Cell, Type, shape, tiling> {
    using Block = NaiveBlock<Cell, Type, shape, tiling>;
    using Block::gates, Block::states, Block::D, Block::number_bytes;
    using typename Block::Number;
    static constexpr unsigned inputless_products = Cell::recurrent & ~Cell::input, inputless_biases = Cell::bias & ~Cell::input;
    static constexpr bool recompute = source == Gates::recomputed;
    static constexpr int row_bytes = ceil_div(element_bytes<Type> * (1 + gates) * D, chunk_bytes) * chunk_bytes;  // h, gradients
    static constexpr int shared_bytes = row_bytes + number_bytes * count_bits(inputless_products) * D * D;
    const BackwardArgumentsOf<Element<Type>>& in;
    Number bias[gates];  // of the gates without an input: sums of their gradients

    TILESMITH_DEVICE explicit NaiveBackward(const BackwardArgumentsOf<Element<Type>>& arguments) : in(arguments) {}

    /// State s before step t.
    TILESMITH_DEVICE Number previous(int s, int b, int t) const {
        if (t == 0) return in.initial == nullptr ? 0.0f : this->load(in.initial, this->at(s, in.batch, b, 1, 0));
        const bool apart = s > 0 && in.others != nullptr;
        return this->load(apart ? in.others : in.states, this->at(apart ? s - 1 : s, in.batch, b, in.seq, t - 1));
    }

    /// A gate's sum: saved, or recomputed, or nothing but its bias.
    TILESMITH_DEVICE Number gate_sum(int gate, int b, int t) const {
        if (!has(Cell::backward_gates, gate)) return 0.0f;
        if (recompute) return this->sum(gate, in.wx, in.r, in.b, b, in.seq, t);
        if (has(Cell::saved, gate)) return this->load(in.gates, this->at(rank_among(Cell::saved, gate), in.batch, b, in.seq, t));
        return this->load(in.b, this->at(rank_among(Cell::bias, gate), 1, 0, 1, 0));
    }

    /// Where this thread, and no other, keeps the sum of a gate without an input and of a previous unit.
    TILESMITH_DEVICE SharedAddress product_at(int gate, int other) const {
        return this->shared + row_bytes + number_bytes * ((rank_among(inputless_products, gate) * D + this->unit) * D + other);
    }

    TILESMITH_DEVICE void clear() {
        for (int g = 0; g < gates; ++g) {
            bias[g] = 0.0f;
            for (int other = 0; this->real && has(inputless_products, g) && other < D; ++other) this->keep_sum(product_at(g, other), 0);
        }
    }

    /// Add a step's gradient of a gate without an input to its sums; products are of rounded numbers.
    TILESMITH_DEVICE void add(int gate, Number d_gate) {
        bias[gate] += d_gate;
        for (int other = 0; this->real && has(inputless_products, gate) && other < D; ++other) {
            const SharedAddress at = product_at(gate, other);
            this->keep_sum(at, this->kept_sum(at) + this->rounded(d_gate) * this->shared_value(0, other));
        }
    }

    TILESMITH_DEVICE void write_sums() const {
        for (int g = 0; g < gates && this->real; ++g) {
            const long long group = this->group;
            const long long product = ((group * count_bits(inputless_products) + rank_among(inputless_products, g)) * shape.heads + this->head) * D;
            for (int other = 0; has(inputless_products, g) && other < D; ++other)
                store_element(in.d_r_partial + (product + this->unit) * D + other, this->kept_sum(product_at(g, other)));
            const long long slice = (group * count_bits(inputless_biases) + rank_among(inputless_biases, g)) * shape.heads + this->head;
            if (has(inputless_biases, g)) store_element(in.d_b_partial + slice * D + this->unit, bias[g]);
        }
    }

    TILESMITH_DEVICE void run_sequence(int b) {
        Number carry[states], gate[gates], state[states], d_next[states], d_gate[gates];
        typename Cell::Ready ready;
#pragma unroll
        for (int s = 0; s < states; ++s)
            carry[s] = in.d_last == nullptr ? 0.0f : this->load(in.d_last, this->at(s, in.batch, b, 1, 0));
        for (int t = in.seq - 1; t >= 0; --t) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
                state[s] = s == 0 || has(Cell::backward_states, s) ? previous(s, b, t) : 0.0f;
                d_next[s] = s == 0 && t < in.seq - 1 ? Cell::recurrent_gradient(carry[0]) : carry[s];
                if (s < known) d_next[s] += this->load(in.d_states, this->at(s, in.batch, b, in.seq, t));
            }
            this->share(0, state[0]);
            sync_block();  // h is there
#pragma unroll
            for (int g = 0; g < gates; ++g) gate[g] = gate_sum(g, b, t);
            Cell::prepare(gate, state, ready);
            Cell::backward(ready, d_next, d_gate, carry);
#pragma unroll
            for (int g = 0; g < gates; ++g) {
                if (has(~Cell::input, g)) add(g, d_gate[g]);
                this->share(1 + g, d_gate[g]);
                if (has(Cell::input, g))
                    this->store(in.d_wx, this->input_at(count_bits(Cell::input), rank_among(Cell::input, g), b, in.seq, t), d_gate[g]);
            }
            sync_block();  // the gates' gradients are there
            if (!Cell::recurrent_cut && this->real)
                for (int g = 0; g < gates; ++g)
                    for (int other = 0; has(Cell::recurrent, g) && other < D; ++other)
                        carry[0] += this->weight(in.r, rank_among(Cell::recurrent, g), other, this->unit) * this->shared_value(1 + g, other);
            sync_block();  // and read
        }
#pragma unroll
        for (int s = 0; s < states; ++s) this->store(in.d_initial, this->at(s, in.batch, b, 1, 0), carry[s]);
    }

    TILESMITH_DEVICE void run() {
        clear();
        const int first = this->group * tiling.sequences;
        for (int b = first; b < minimum(first + tiling.sequences, in.batch); ++b) run_sequence(b);
        write_sums();
    }
};

}  // namespace tilesmith
