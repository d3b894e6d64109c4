// Loads and stores of the block's own shared memory.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Start of the block's dynamic shared memory.
TILESMITH_DEVICE SharedAddress shared_memory() {
    extern __shared__ __align__(128) unsigned char tilesmith_shared_memory[];
    return static_cast<SharedAddress>(__cvta_generic_to_shared(tilesmith_shared_memory));
}

TILESMITH_DEVICE unsigned load_shared_8(SharedAddress address) {
    unsigned value;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE unsigned short load_shared_16(SharedAddress address) {
    unsigned short value;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE unsigned load_shared_32(SharedAddress address) {
    unsigned value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint2 load_shared_64(SharedAddress address) {
    uint2 value;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE uint4 load_shared_128(SharedAddress address) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}
TILESMITH_DEVICE float4 load_shared_float4(SharedAddress address) {
    float4 value;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}
TILESMITH_DEVICE double load_shared_double(SharedAddress address) {
    double value;
    asm volatile("ld.shared.f64 %0, [%1];" : "=d"(value) : "r"(address) : "memory");
    return value;
}
TILESMITH_DEVICE void store_shared_16(SharedAddress address, unsigned short value) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_32(SharedAddress address, unsigned value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_64(SharedAddress address, uint2 value) {
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(value.x), "r"(value.y) : "memory");
}
TILESMITH_DEVICE void store_shared_double(SharedAddress address, double value) {
    asm volatile("st.shared.f64 [%0], %1;" ::"r"(address), "d"(value) : "memory");
}
TILESMITH_DEVICE void store_shared_128(SharedAddress address, uint4 value) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x), "r"(value.y),
                 "r"(value.z), "r"(value.w)
                 : "memory");
}
TILESMITH_DEVICE void store_shared_float4(SharedAddress address, float4 value) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(value.x), "f"(value.y),
                 "f"(value.z), "f"(value.w)
                 : "memory");
}

}  // namespace tilesmith
