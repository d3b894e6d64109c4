// Matrices of 8 x 8 words, from shared memory into a warp's registers, back, and transposed between lanes.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Load two 8 x 8 matrices of 16-bit words, transposed: lane l < 16 gives the address of row l % 8 of matrix
/// l / 8; lane (g, j) receives words [2j][g] and [2j+1][g] of each matrix.
TILESMITH_DEVICE void ldmatrix_x2_trans(unsigned (&out)[2], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(row)
                 : "memory");
}
/// The same for one matrix: lanes 0 to 7 give the row addresses.
TILESMITH_DEVICE void ldmatrix_x1_trans(unsigned& out, SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(out) : "r"(row) : "memory");
}
/// The same for four matrices: every lane gives one row address.
TILESMITH_DEVICE void ldmatrix_x4_trans(unsigned (&out)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

/// Load two or four 8 x 8 matrices of 16-bit words as they lie: lane (g, j) receives words [g][2j] and [g][2j+1] of each.
TILESMITH_DEVICE void ldmatrix_x2(unsigned (&out)[2], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "r"(row) : "memory");
}
TILESMITH_DEVICE void ldmatrix_x4(unsigned (&out)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

/// The inverse of ldmatrix_x4_trans: lane (g, j) gives words [2j][g] and [2j+1][g] of each of four matrices, and every lane
/// the address of one row. Needs sm_90.
TILESMITH_DEVICE void stmatrix_x4_trans(SharedAddress row, const unsigned (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}
/// The same for two matrices: lanes 0 to 15 give the row addresses.
TILESMITH_DEVICE void stmatrix_x2_trans(SharedAddress row, const unsigned (&words)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(words[0]), "r"(words[1])
                 : "memory");
}
/// The same for one matrix: lanes 0 to 7 give the row addresses.
TILESMITH_DEVICE void stmatrix_x1_trans(SharedAddress row, unsigned words) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row), "r"(words) : "memory");
}

/// Transpose an 8 x 8 matrix of 16-bit words held one pair a lane: in, lane (g, j) holds [g][2j], [g][2j+1];
/// out, it holds [2j][g], [2j+1][g].
TILESMITH_DEVICE unsigned movmatrix_trans(unsigned pair) {
    unsigned out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
    return out;
}

}  // namespace tilesmith
