// The twin of ptx/matrices.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline void ldmatrix_x1_trans(unsigned& out, SharedAddress row, Site site = Site::current()) {
    out = emulate::load_matrices_transposed(1, row, site).words[0];
}
inline void ldmatrix_x2_trans(unsigned (&out)[2], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices_transposed(2, row, site);
    for (int i = 0; i < 2; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x4_trans(unsigned (&out)[4], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices_transposed(4, row, site);
    for (int i = 0; i < 4; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x2(unsigned (&out)[2], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices(2, row, site);
    for (int i = 0; i < 2; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x4(unsigned (&out)[4], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices(4, row, site);
    for (int i = 0; i < 4; ++i) out[i] = loaded.words[i];
}
inline void stmatrix_x1_trans(SharedAddress row, unsigned words, Site site = Site::current()) {
    emulate::store_matrices_transposed(1, row, {{words}}, site);
}
inline void stmatrix_x2_trans(SharedAddress row, const unsigned (&words)[2], Site site = Site::current()) {
    emulate::store_matrices_transposed(2, row, {{words[0], words[1]}}, site);
}
inline void stmatrix_x4_trans(SharedAddress row, const unsigned (&words)[4], Site site = Site::current()) {
    emulate::store_matrices_transposed(4, row, {{words[0], words[1], words[2], words[3]}}, site);
}
inline unsigned movmatrix_trans(unsigned pair, Site site = Site::current()) {
    return emulate::transpose_matrix(pair, site);
}

}  // namespace tilesmith
