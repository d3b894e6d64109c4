// The gradients of R and b for the gates without an input, summed while a backward kernel runs. Those of the others follow
// afterwards from d_wx, which is an output anyway (parameter_gradients.cuh); an array of these for every step is as
// large as a state, for nothing but that sum. Blocks that have h of a part of a head only write it all the same.
//
// A product of gradients and previous h, both as they lie: a lane's gradients are its part of the matrix whose rows are
// units and whose columns are sequences, h lies in the ring of inputs. It waits for nothing and nothing waits for it.
#pragma once

#include "factors.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// A warp's part, of 16 units, or 8 where it is of biases alone. summed: the gates among them whose gradient of R is summed.
/// Sums are float, and of the warp's sequences and all steps.
template <class Cell, class Type, FixedShape shape, int units, int rows, int row_bytes, unsigned summed>
struct PartialGradients {
    static constexpr int D = shape.head_dim;
    static constexpr unsigned products = summed;
    static constexpr unsigned biases = Cell::bias & ~Cell::input;
    static constexpr unsigned members = products | biases;

    using Elements = LaneElements<shape, units, rows>;
    static constexpr int unit_groups = Elements::unit_groups;
    static constexpr int column_tiles = Elements::column_tiles;
    static constexpr int columns = Elements::columns;
    static constexpr bool sixteen_bits = element_bytes<Type> == 2;
    static constexpr int sequence_tiles = column_tiles;  // of 8 k each, two of 16 bits to an instruction
    static constexpr int unit_tiles = ceil_div(D, 8);    // of previous units
    static_assert(products == 0 || units == 16, "a matrix tile is of 16 units");

    float product[maximum(1, count_bits(products))][products != 0 ? unit_tiles : 1][4];
    float sum[maximum(1, count_bits(biases))][unit_groups];
    static constexpr int tile_words = sixteen_bits ? 1 : 2;  // of a unit: what two k take
    unsigned words[maximum(1, count_bits(products))][sequence_tiles][tile_words * unit_groups];  // of the step that is done

    TILESMITH_DEVICE void clear() {
#pragma unroll
        for (int q = 0; q < count_bits(products); ++q)
#pragma unroll
            for (int tile = 0; tile < unit_tiles; ++tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) product[q][tile][i] = 0.0f;
#pragma unroll
        for (int q = 0; q < count_bits(biases); ++q)
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group) sum[q][unit_group] = 0.0f;
    }

    /// Take a step's gradients: value(gate, unit_group, column_tile, column), which must be zero for padding.
    template <class Own, class Value>
    TILESMITH_DEVICE void take(const Own& own, Value value) {
        const auto real = [&](int gate, int unit_group, int column_tile, int column) {
            const bool within = own.first_row + own.row(column_tile, column) < own.batch;
            return within ? value(gate, unit_group, column_tile, column) : 0.0f;
        };
#pragma unroll
        for (int gate = 0; gate < Cell::gates; ++gate) {
            if (!has(members, gate)) continue;
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group)
#pragma unroll
                for (int tile = 0; tile < column_tiles; ++tile) {
                    const float first = real(gate, unit_group, tile, 0);
                    const float second = columns == 2 ? real(gate, unit_group, tile, columns - 1) : 0.0f;
                    if (has(biases, gate)) sum[has(biases, gate) ? rank_among(biases, gate) : 0][unit_group] += first + second;
                    if (has(products, gate)) {
                        auto& of_tile = words[has(products, gate) ? rank_among(products, gate) : 0][tile];
                        if constexpr (sixteen_bits) {
                            of_tile[unit_group] = pack<Type>(first, second);
                        } else {
                            of_tile[unit_group] = __float_as_uint(first);
                            of_tile[unit_groups + unit_group] = __float_as_uint(second);
                        }
                    }
                }
        }
    }

    /// Multiply what was taken with the previous h of that step, whose sequences are rows from `hidden` on. With 4
    /// sequences every second k counts: the others' gradients are zero, and their rows those of their neighbours.
    TILESMITH_DEVICE void multiply(SharedAddress hidden, int lane) {
        if constexpr (products != 0 && !sixteen_bits) {
#pragma unroll
            for (int tile = 0; tile < sequence_tiles; ++tile) multiply_floats(hidden, tile, lane);
        } else if constexpr (products != 0) {
#pragma unroll
            for (int tile = 0; tile < sequence_tiles; tile += 2) {
                if (tile + 1 < sequence_tiles)  // at compile time, as everything here
                    multiply_tiles<2>(hidden, tile, lane);
                else
                    multiply_tiles<1>(hidden, tile, lane);
            }
        }
    }

    /// The part of one or two tiles of sequences, from `first` on.
    template <int halves>
    TILESMITH_DEVICE void multiply_tiles(SharedAddress hidden, int first, int lane) {
        const int row = Elements::half_filled ? lane % 8 / 2 : 8 * (first + (halves == 2 ? lane / 8 % 2 : 0)) + lane % 8;
        const SharedAddress at = hidden + row * row_bytes;
        constexpr int at_once = 4 / halves;  // unit tiles of a load
#pragma unroll
        for (int begin = 0; begin < unit_tiles; begin += at_once) {
            const int tile = minimum(begin + lane / (8 * halves), unit_tiles - 1);
            unsigned h[4];
            ldmatrix_x4_trans(h, at + tile * chunk_bytes);
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                if (begin + i >= unit_tiles) continue;
#pragma unroll
                for (int q = 0; q < count_bits(products); ++q) {
                    float(&d)[4] = product[q][begin + i < unit_tiles ? begin + i : 0];
                    if constexpr (halves == 2) {
                        const unsigned(&low)[unit_groups] = words[q][first], (&high)[unit_groups] = words[q][first + 1];
                        const unsigned a[4] = {low[0], low[1], high[0], high[1]};
                        mma_m16n8k16<Type>(d, a, h[2 * i], h[2 * i + 1], d);
                    } else {
                        mma_m16n8k8<Type>(d, words[q][first], h[i], d);
                    }
                }
            }
        }
    }

    /// The part of one tile of floats: k = j and j + 4 of an instruction are the two sequences of a lane, or its sequence and
    /// nothing.
    TILESMITH_DEVICE void multiply_floats(SharedAddress hidden, int tile, int lane) {
        const SharedAddress at = hidden + (8 * tile + lane % 4 * columns) * row_bytes + lane / 4 * 4;
        Factors<Type, 4> gradients[count_bits(products)];
#pragma unroll
        for (int q = 0; q < count_bits(products); ++q)
#pragma unroll
            for (int i = 0; i < 4; ++i) gradients[q].set(i, words[q][tile][i]);
#pragma unroll
        for (int unit_tile = 0; unit_tile < unit_tiles; ++unit_tile) {
            Factors<Type, 2> h;
            h.set(0, load_shared_32(at + 32 * unit_tile));
            h.set(1, columns == 2 ? load_shared_32(at + 32 * unit_tile + row_bytes) : 0);
#pragma unroll
            for (int q = 0; q < count_bits(products); ++q) multiply_add(product[q][unit_tile], gradients[q], h);
        }
    }

    /// Write the sums of part `part` of the batch.
    template <class Own>
    TILESMITH_DEVICE void write_out(const BackwardArgumentsOf<Element<Type>>& in, const Own& own, int part) const {
#pragma unroll
        for (int q = 0; q < count_bits(products); ++q) {
            const long long slice = (static_cast<long long>(part) * count_bits(products) + q) * shape.heads + own.head;
#pragma unroll
            for (int tile = 0; tile < unit_tiles; ++tile)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int unit = own.unit(i / 2), previous = 8 * tile + 2 * own.j + i % 2;
                    if (unit >= D || previous >= D) continue;
                    store_global_float(in.d_r_partial + (slice * D + unit) * D + previous, product[q][tile][i]);
                }
        }
#pragma unroll
        for (int q = 0; q < count_bits(biases); ++q) {
            const long long slice = (static_cast<long long>(part) * count_bits(biases) + q) * shape.heads + own.head;
#pragma unroll
            for (int unit_group = 0; unit_group < unit_groups; ++unit_group) {
                float total = sum[q][unit_group];  // of four lanes that have the same unit
                total += shuffle_xor(total, 1);
                total += shuffle_xor(total, 2);
                if (own.j == 0 && own.unit(unit_group) < D)
                    store_global_float(in.d_b_partial + slice * D + own.unit(unit_group), total);
            }
        }
    }
};

}  // namespace tilesmith
