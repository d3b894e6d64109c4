// Products of small matrices by the tensor cores, a warp at a time.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// d = a x b + c for a 16 x 16 tile a (row-major), a 16 x 8 tile b (column-major) and float accumulators.
/// Lane (g, j) holds of a: words k = 2j, 2j+1 of rows g and g+8, then k = 2j+8, 2j+9 of the same rows; of b:
/// k = 2j, 2j+1 then 2j+8, 2j+9 of column g; of c and d: columns 2j, 2j+1 of row g, then of row g+8.
template <class Type>
TILESMITH_DEVICE void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                   const float (&c)[4]);

/// The same for half as many k, 0 to 7: of a words k = 2j, 2j+1 of rows g and g+8, of b those of column g.
template <class Type>
TILESMITH_DEVICE void mma_m16n8k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]);

template <>
TILESMITH_DEVICE void mma_m16n8k8<bf16>(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
template <>
TILESMITH_DEVICE void mma_m16n8k8<fp16>(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

template <>
TILESMITH_DEVICE void mma_m16n8k16<bf16>(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                         const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
template <>
TILESMITH_DEVICE void mma_m16n8k16<fp16>(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                         const float (&c)[4]) {
    if constexpr (architecture < 80) {
        const unsigned first[2] = {a[0], a[1]}, second[2] = {a[2], a[3]};
        float half[4];
        mma_m16n8k8<fp16>(half, first, b0, c);
        mma_m16n8k8<fp16>(d, second, b1, half);
        return;
    }
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/// d = a x b + c for a 16 x 8 tile a, an 8 x 8 tile b and float accumulators, of factors in TF32: of a word's bits the
/// upper 19 count, 8 of the exponent and 10 of the significand. Lane (g, j) holds of a: k = j of rows g and g+8, then
/// k = j+4 of the same rows; of b: k = j, j+4 of column g; of c and d what mma_m16n8k16 says. Sums are cut, not rounded.
TILESMITH_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/// d = a x b + d for an 8 x 4 tile a, a 4 x 8 tile b, all in double. Lane (g, j) holds of a: k = j of row g; of b: k = j of
/// column g; of d: columns 2j, 2j+1 of row g. Sums are rounded to the nearest.
TILESMITH_DEVICE void mma_m8n8k4_f64(double& d0, double& d1, double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+d"(d0), "+d"(d1) : "d"(a), "d"(b));
}

}  // namespace tilesmith
