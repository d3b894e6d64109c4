// Warp-level matrices. Fragment layouts: PTX ISA, "Warp-level matrix instructions"; g = lane / 4, j = lane % 4.
#pragma once

#include "numbers.hpp"
#include "shared.hpp"
#include "warp.hpp"

namespace tilesmith::emulate {

/// d = a x b + c, 16 x 8 x 16. The 16 products and c are summed in double and rounded to float once: at least as
/// exact as the hardware, whose order and intermediate rounding are not documented.
Accumulators multiply_16x8x16(const MatrixOperands& operands, float (*decode)(unsigned), const Site& site) {
    Accumulators result;
    collective("mma_m16n8k16", site, operands, result, [decode](Warp& warp) {
        double a[16][16], b[8][16];
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const auto& in = input<MatrixOperands>(warp, lane);
            const unsigned g = lane / 4, j = lane % 4;
            for (unsigned i = 0; i < 4; ++i)
                for (unsigned half = 0; half < 2; ++half)
                    a[g + 8 * (i % 2)][2 * j + 8 * (i / 2) + half] = decode(in.a[i] >> 16 * half & 0xffffu);
            for (unsigned i = 0; i < 2; ++i)
                for (unsigned half = 0; half < 2; ++half)
                    b[g][2 * j + 8 * i + half] = decode(in.b[i] >> 16 * half & 0xffffu);
        }
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const auto& in = input<MatrixOperands>(warp, lane);
            auto& out = output<Accumulators>(warp, lane);
            for (unsigned i = 0; i < 4; ++i) {
                const double* row = a[lane / 4 + 8 * (i / 2)];
                const double* column = b[2 * (lane % 4) + i % 2];
                double sum = in.c[i];
                for (unsigned k = 0; k < 16; ++k) sum += row[k] * column[k];
                out.d[i] = static_cast<float>(sum);
            }
        }
    });
    return result;
}

/// The float next to zero from a number: what is left of a sum of TF32 products.
inline float cut(double value) {
    const float nearest = static_cast<float>(value);
    const bool grown = __builtin_fabs(static_cast<double>(nearest)) > __builtin_fabs(value);
    return grown && __builtin_isfinite(nearest) ? __builtin_nextafterf(nearest, 0.0f) : nearest;
}

/// d = a x b + c, 16 x 8 x 8 of TF32. The 8 products and c are summed in double and cut to float once, as tensor cores
/// cut (Fasi et al. 2021, doi:10.7717/peerj-cs.330): a sum of many becomes too small.
Accumulators multiply_16x8x8_tf32(const MatrixOperands& operands, const Site& site) {
    Accumulators result;
    collective("mma_m16n8k8_tf32", site, operands, result, [](Warp& warp) {
        const auto decode = [](unsigned word) { return __uint_as_float(word & 0xffffe000u); };
        double a[16][8], b[8][8];
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const auto& in = input<MatrixOperands>(warp, lane);
            const unsigned g = lane / 4, j = lane % 4;
            for (unsigned i = 0; i < 4; ++i) a[g + 8 * (i % 2)][j + 4 * (i / 2)] = decode(in.a[i]);
            for (unsigned i = 0; i < 2; ++i) b[g][j + 4 * i] = decode(in.b[i]);
        }
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const auto& in = input<MatrixOperands>(warp, lane);
            auto& out = output<Accumulators>(warp, lane);
            for (unsigned i = 0; i < 4; ++i) {
                double sum = in.c[i];
                for (unsigned k = 0; k < 8; ++k) sum += a[lane / 4 + 8 * (i / 2)][k] * b[2 * (lane % 4) + i % 2][k];
                out.d[i] = cut(sum);
            }
        }
    });
    return result;
}

/// d = a x b + c, 8 x 8 x 4, each product added with one rounding.
DoubleAccumulators multiply_8x8x4_f64(const DoubleOperands& operands, const Site& site) {
    DoubleAccumulators result;
    collective("mma_m8n8k4_f64", site, operands, result, [](Warp& warp) {
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const auto& in = input<DoubleOperands>(warp, lane);
            auto& out = output<DoubleAccumulators>(warp, lane);
            for (unsigned i = 0; i < 2; ++i) {
                out.d[i] = in.c[i];
                for (unsigned k = 0; k < 4; ++k)
                    out.d[i] = __builtin_fma(input<DoubleOperands>(warp, lane / 4 * 4 + k).a,
                                             input<DoubleOperands>(warp, 4 * (2 * (lane % 4) + i) + k).b, out.d[i]);
            }
        }
    });
    return result;
}

/// ldmatrix of `matrices` 8 x 8 matrices; lane (g, j) gets word(matrix, g, 2j) and word(matrix, g, 2j + 1), where the words
/// of a matrix are given by row. A row is read by the lane that gives its address.
template <class Word>
Fragments load_rows(const char* operation, unsigned matrices, unsigned row_address, const Site& site, Word word) {
    Fragments result;
    collective(operation, site, row_address, result, [matrices, &site, word](Warp& warp) {
        unsigned short words[4][8][8];
        for (unsigned lane = 0; lane < 8 * matrices; ++lane) {
            const Thread& reader = warp.block->threads[warp.index * warp_size + lane];
            warp.block->shared->read(reader, input<unsigned>(warp, lane), words[lane / 8][lane % 8], 16, site);
        }
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            const unsigned g = lane / 4, j = lane % 4;
            for (unsigned i = 0; i < matrices; ++i)
                output<Fragments>(warp, lane).words[i] =
                    word(words[i], g, 2 * j) | static_cast<unsigned>(word(words[i], g, 2 * j + 1)) << 16;
        }
    });
    return result;
}

/// ldmatrix.trans of 1, 2 or 4 matrices.
Fragments load_matrices_transposed(unsigned matrices, unsigned row_address, const Site& site) {
    const char* operation = matrices == 1   ? "ldmatrix_x1_trans"
                            : matrices == 2 ? "ldmatrix_x2_trans"
                                            : "ldmatrix_x4_trans";
    return load_rows(operation, matrices, row_address, site,
                     [](const unsigned short(&words)[8][8], unsigned g, unsigned i) { return words[i][g]; });
}

/// ldmatrix of 2 or 4 matrices.
Fragments load_matrices(unsigned matrices, unsigned row_address, const Site& site) {
    return load_rows(matrices == 2 ? "ldmatrix_x2" : "ldmatrix_x4", matrices, row_address, site,
                     [](const unsigned short(&words)[8][8], unsigned g, unsigned i) { return words[g][i]; });
}

/// A lane's part of a stmatrix: its row address and its words of each matrix.
struct RowAndFragments {
    unsigned row_address;
    Fragments fragments;
};

/// stmatrix.trans of 1, 2 or 4 8 x 8 matrices. A row is written by the lane that gives its address.
void store_matrices_transposed(unsigned matrices, unsigned row_address, Fragments fragments, const Site& site) {
    const char* operation = matrices == 1   ? "stmatrix_x1_trans"
                            : matrices == 2 ? "stmatrix_x2_trans"
                                            : "stmatrix_x4_trans";
    const RowAndFragments given{row_address, fragments};
    char nothing = 0;
    collective(operation, site, given, nothing, [matrices, &site](Warp& warp) {
        for (unsigned lane = 0; lane < 8 * matrices; ++lane) {
            const Thread& writer = warp.block->threads[warp.index * warp_size + lane];
            const unsigned row = lane % 8;
            unsigned short words[8];
            for (unsigned g = 0; g < 8; ++g) {
                const unsigned held = input<RowAndFragments>(warp, 4 * g + row / 2).fragments.words[lane / 8];
                words[g] = static_cast<unsigned short>(held >> 16 * (row % 2));
            }
            warp.block->shared->write(writer, input<RowAndFragments>(warp, lane).row_address, words, 16, site);
        }
    });
}

/// movmatrix.trans of one 8 x 8 matrix.
unsigned transpose_matrix(unsigned pair, const Site& site) {
    unsigned result = 0;
    collective("movmatrix_trans", site, pair, result, [](Warp& warp) {
        unsigned words[8][8];
        for (unsigned lane = 0; lane < warp_size; ++lane)
            for (unsigned half = 0; half < 2; ++half)
                words[lane / 4][2 * (lane % 4) + half] = input<unsigned>(warp, lane) >> 16 * half & 0xffffu;
        for (unsigned lane = 0; lane < warp_size; ++lane)
            output<unsigned>(warp, lane) = words[2 * (lane % 4)][lane / 4] | words[2 * (lane % 4) + 1][lane / 4] << 16;
    });
    return result;
}

}  // namespace tilesmith::emulate
