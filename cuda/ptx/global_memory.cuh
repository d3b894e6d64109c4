// Loads and stores of global memory.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Read-only loads; the memory must not change while the kernel runs.
TILESMITH_DEVICE unsigned load_global_8(const void* address) {
    unsigned value;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE unsigned short load_global_16(const void* address) {
    unsigned short value;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE unsigned load_global_32(const void* address) {
    unsigned value;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE uint2 load_global_64(const void* address) {
    uint2 value;
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(address));
    return value;
}
TILESMITH_DEVICE uint4 load_global_128(const void* address) {
    uint4 value;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address));
    return value;
}
TILESMITH_DEVICE float load_global_float(const void* address) {
    float value;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE double load_global_double(const void* address) {
    double value;
    asm volatile("ld.global.nc.f64 %0, [%1];" : "=d"(value) : "l"(address));
    return value;
}
TILESMITH_DEVICE void store_global_16(void* address, unsigned short value) {
    asm volatile("st.global.u16 [%0], %1;" ::"l"(address), "h"(value) : "memory");
}
TILESMITH_DEVICE void store_global_32(void* address, unsigned value) {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
TILESMITH_DEVICE void store_global_float(void* address, float value) {
    asm volatile("st.global.f32 [%0], %1;" ::"l"(address), "f"(value) : "memory");
}
TILESMITH_DEVICE void store_global_double(void* address, double value) {
    asm volatile("st.global.f64 [%0], %1;" ::"l"(address), "d"(value) : "memory");
}
TILESMITH_DEVICE void store_global_64(void* address, uint2 value) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(value.x), "r"(value.y) : "memory");
}
TILESMITH_DEVICE void store_global_128(void* address, uint4 value) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(value.x), "r"(value.y),
                 "r"(value.z), "r"(value.w)
                 : "memory");
}

/// Load what the kernel itself has stored: the calling thread, or one that it has met since; or an earlier launch.
TILESMITH_DEVICE unsigned short load_stored_16(const void* address) {
    unsigned short value;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(value) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE unsigned load_stored_32(const void* address) {
    unsigned value;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint2 load_stored_64(const void* address) {
    uint2 value;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 load_stored_128(const void* address) {
    uint4 value;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address)
                 : "memory");
    return value;
}
TILESMITH_DEVICE float load_stored_float(const void* address) {
    float value;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(value) : "l"(address) : "memory");
    return value;
}

TILESMITH_DEVICE double load_stored_double(const void* address) {
    double value;
    asm volatile("ld.global.f64 %0, [%1];" : "=d"(value) : "l"(address) : "memory");
    return value;
}

/// Load what another block has stored, by way of L2: a counter has said that it is there (counters.cuh).
TILESMITH_DEVICE uint2 load_sent_64(const void* address) {
    uint2 value;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "l"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 load_sent_128(const void* address) {
    uint4 value;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address)
                 : "memory");
    return value;
}

}  // namespace tilesmith
