// Where a thread is, what it hides from the compiler, and its clocks.
#pragma once

#include "ptx/types.cuh"

namespace tilesmith {

TILESMITH_DEVICE unsigned thread_index() { return threadIdx.x; }
TILESMITH_DEVICE unsigned block_x() { return blockIdx.x; }
TILESMITH_DEVICE unsigned block_y() { return blockIdx.y; }
/// How many blocks there are along x.
TILESMITH_DEVICE unsigned blocks_x() { return gridDim.x; }

/// The same number, of which the compiler knows nothing: what follows from it is computed where it stands, not kept in
/// registers through a loop in which it does not change.
TILESMITH_DEVICE int opaque(int value) {
    asm volatile("" : "+r"(value));
    return value;
}

/// The same word, whatever `earlier` is: what follows from it is computed no sooner than that is there, and not before a loop.
TILESMITH_DEVICE unsigned word_after(float earlier, unsigned word) {
    unsigned out;  // the larger of the word and a smaller one, of which the assembler knows nothing
    asm volatile("{.reg .s32 least; min.s32 least, %1, %2; max.s32 %0, least, %2;}"
                 : "=r"(out)
                 : "r"(__float_as_uint(earlier)), "r"(word));
    return out;
}

/// The condition, of a branch that is seldom taken.
TILESMITH_DEVICE bool seldom(bool condition) { return __builtin_expect(condition, false); }

/// Clocks of the multiprocessor, from some moment on; memory is not touched earlier or later than the source says.
TILESMITH_DEVICE unsigned long long read_clock() {
    unsigned long long clocks;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clocks)::"memory");
    return clocks;
}

/// Nanoseconds of a clock that all multiprocessors share.
TILESMITH_DEVICE unsigned long long read_nanoseconds() {
    unsigned long long time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    return time;
}

}  // namespace tilesmith
