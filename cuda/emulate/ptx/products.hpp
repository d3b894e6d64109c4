// The twin of ptx/products.cuh.
#pragma once

#include "emulate/ptx/conversions.hpp"

namespace tilesmith {

template <class Type>
void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4],
                  Site site = Site::current()) {
    const emulate::MatrixOperands operands{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    const auto result = emulate::multiply_16x8x16(operands, emulate::Format<Type>::decode, site);
    for (int i = 0; i < 4; ++i) d[i] = result.d[i];
}

template <class Type>
void mma_m16n8k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4], Site site = Site::current()) {
    const unsigned padded[4] = {a[0], a[1], 0, 0};
    mma_m16n8k16<Type>(d, padded, b, 0, c, site);
}

inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4],
                             Site site = Site::current()) {
    const emulate::MatrixOperands operands{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    const auto result = emulate::multiply_16x8x8_tf32(operands, site);
    for (int i = 0; i < 4; ++i) d[i] = result.d[i];
}

inline void mma_m8n8k4_f64(double& d0, double& d1, double a, double b, Site site = Site::current()) {
    const emulate::DoubleOperands operands{a, b, {d0, d1}};
    const auto result = emulate::multiply_8x8x4_f64(operands, site);
    d0 = result.d[0], d1 = result.d[1];
}

}  // namespace tilesmith
