// What the lanes of a warp tell each other.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

/// Whether `value` holds in any lane of the warp; all 32 ask.
TILESMITH_DEVICE bool any_lane(bool value) { return __any_sync(0xffffffffu, value) != 0; }
/// The lanes, a bit each, whose value is true.
TILESMITH_DEVICE unsigned ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

/// The place of the lowest bit that is set; one is.
TILESMITH_DEVICE int lowest_bit(unsigned bits) { return __ffs(static_cast<int>(bits)) - 1; }

/// The value of the lane whose number differs in the bits of `lanes`; all 32 exchange.
TILESMITH_DEVICE float shuffle_xor(float value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }
/// The least of the lanes' values; the compiler knows that all get the same, where there is an instruction for it.
TILESMITH_DEVICE int least_of_lanes(int value) {
    if constexpr (architecture >= 80) {
        int least;
        asm volatile("redux.sync.min.s32 %0, %1, 0xffffffff;" : "=r"(least) : "r"(value));
        return least;
    } else {
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            const int other = __shfl_xor_sync(0xffffffffu, value, lanes);
            value = other < value ? other : value;
        }
        return value;
    }
}
/// The greatest, likewise. Not minus the least of their negatives: where a minimum of three has a negated operand, the
/// assemblers of CUDA 12.8 to 13.3 lose the sign (pytorch/pytorch#190973), and a loop to there never ends.
TILESMITH_DEVICE int greatest_of_lanes(int value) {
    if constexpr (architecture >= 80) {
        int greatest;
        asm volatile("redux.sync.max.s32 %0, %1, 0xffffffff;" : "=r"(greatest) : "r"(value));
        return greatest;
    } else {
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            const int other = __shfl_xor_sync(0xffffffffu, value, lanes);
            value = other > value ? other : value;
        }
        return value;
    }
}

/// The value of any lane, its number modulo 32.
/// A value that all lanes have alike, as the compiler does not know: what is computed of it may live in uniform registers, from
/// which wgmma takes its descriptors.
TILESMITH_DEVICE unsigned uniform(unsigned value) { return __shfl_sync(0xffffffffu, value, 0); }
TILESMITH_DEVICE unsigned shuffle(unsigned value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
TILESMITH_DEVICE float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
TILESMITH_DEVICE double shuffle(double value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
TILESMITH_DEVICE double shuffle_xor(double value, int lanes) { return __shfl_xor_sync(0xffffffffu, value, lanes); }

}  // namespace tilesmith
