// The twin of ptx/warpgroups.cuh.
#pragma once

#include "emulate/ptx/conversions.hpp"

namespace tilesmith {

using MatrixDescriptor = unsigned long long;

inline MatrixDescriptor matrix_descriptor(SharedAddress first, int along_k, int along_rows) {
    return static_cast<MatrixDescriptor>(first >> 4 & 0x3fffu) | static_cast<MatrixDescriptor>(along_k >> 4) << 16 |
           static_cast<MatrixDescriptor>(along_rows >> 4) << 32;
}
inline void fence_shared_for_wgmma(Site site = Site::current()) { emulate::fence_shared(site); }
inline void wgmma_fence(Site site = Site::current()) { emulate::fence_products(site); }
inline void wgmma_commit(Site site = Site::current()) { emulate::commit_products(site); }
template <int pending>
void wgmma_wait(Site site = Site::current()) {
    static_assert(pending >= 0 && pending <= 7, "a number of groups");
    emulate::wait_for_products(pending, site);
}
template <int column_tiles>
void hold(float (&d)[column_tiles][4]) {
    static_cast<void>(d);
}

namespace emulate {
template <class Type, int column_tiles>
WarpgroupProduct product_of(float (&d)[column_tiles][4], unsigned long long b, bool adds) {
    static_assert(column_tiles == 2 || column_tiles == 4 || column_tiles == 8 || column_tiles == 16, "N of 16, 32, 64 or 128");
    return {.d = &d[0][0], .columns = 8 * column_tiles, .b_descriptor = b, .adds = adds, .decode = Format<Type>::decode};
}
}  // namespace emulate

template <class Type, int column_tiles>
void wgmma(float (&d)[column_tiles][4], const unsigned (&a)[4], MatrixDescriptor b, bool adds, Site site = Site::current()) {
    auto product = emulate::product_of<Type>(d, b, adds);
    product.a_in_registers = true;
    for (int i = 0; i < 4; ++i) product.a[i] = a[i];
    emulate::issue_warpgroup_product(product, site);
}
template <class Type, int column_tiles>
void wgmma(float (&d)[column_tiles][4], MatrixDescriptor a, MatrixDescriptor b, bool adds, Site site = Site::current()) {
    auto product = emulate::product_of<Type>(d, b, adds);
    product.a_descriptor = a;
    emulate::issue_warpgroup_product(product, site);
}

}  // namespace tilesmith
