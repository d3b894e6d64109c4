// What backward kernels share that store the gates' gradients: what a step reads and writes, and the step of one element.
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// What a step reads and writes, by masks of the cell. state_gradients: how many states have gradients from outside.
template <class Cell, int state_gradients>
struct GradientArrays {
    static constexpr unsigned stored = Cell::recurrent | Cell::input;  // gates whose gradients others read, or the output has
    static constexpr unsigned inputless_products = Cell::recurrent & ~Cell::input;
    static constexpr unsigned inputless_biases = Cell::bias & ~Cell::input;
    static constexpr int read_gates = count_bits(Cell::saved);
    static constexpr int read_states = count_bits(Cell::backward_states);
    static constexpr int arrays = read_gates + read_states + state_gradients;
    static constexpr int planes = maximum(arrays, count_bits(stored));
};

/// What the step of one element computes before any gradient is there. value(array): what it reads of an array. bias(gate): of a
/// gate.
template <class Cell, class Type, int state_gradients, class Value, class Bias>
TILESMITH_DEVICE void prepare_gradient(Value value, Bias bias, typename Cell::Ready& ready) {
    using Arrays = GradientArrays<Cell, state_gradients>;
    constexpr int states = Cell::states, gates = Cell::gates;
    Real<Type> gate[gates], previous[states];
#pragma unroll
    for (int q = 0; q < gates; ++q) gate[q] = has(Cell::saved, q) ? value(rank_among(Cell::saved, q)) : bias(q);
#pragma unroll
    for (int s = 0; s < states; ++s)
        previous[s] = has(Cell::backward_states, s) ? value(Arrays::read_gates + rank_among(Cell::backward_states, s)) : 0.0f;
    Cell::prepare(gate, previous, ready);
}

/// The rest of it. outside(s): the gradient of state s from outside, of the first so many. carried: the gradients of the states
/// after the step that later steps send back; becomes those before it, or stays where the step is none of its sequence's.
template <class Cell, class Type, int state_gradients, class Outside>
TILESMITH_DEVICE void finish_gradient(const typename Cell::Ready& ready, Outside outside, bool runs, Real<Type> (&carried)[Cell::states],
                                      Real<Type> (&d_gate)[Cell::gates]) {
    constexpr int states = Cell::states, gates = Cell::gates;
    Real<Type> d_next[states], d_state[states];
#pragma unroll
    for (int s = 0; s < states; ++s) d_next[s] = s < state_gradients ? carried[s] + outside(s) : carried[s];
    Cell::backward(ready, d_next, d_gate, d_state);
    if (!runs) {  // behind the end: what a step reads there may be NaN
#pragma unroll
        for (int q = 0; q < gates; ++q) d_gate[q] = 0.0f;
        return;
    }
#pragma unroll
    for (int s = 0; s < states; ++s) carried[s] = d_state[s];
}

}  // namespace tilesmith
