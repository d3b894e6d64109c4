// Every PTX instruction that the schedules use, one small function each: the files of ptx/.
//
// Device code reaches memory and the hardware only through this door, so that the emulator can run the
// same kernels on a CPU: with TILESMITH_EMULATE defined, each function is taken from emulate/ptx/, which
// gives it the same meaning in plain C++.
//
// Addresses: a SharedAddress is a byte offset in the shared state space of one block; global memory is
// reached through ordinary pointers. Lane numbers and fragment layouts are those of the PTX ISA, chapter
// "Warp-level matrix instructions": g = lane / 4, j = lane % 4.
#pragma once

#ifdef TILESMITH_EMULATE
#include "emulate/ptx.hpp"
#else
#include "ptx/barriers.cuh"
#include "ptx/clusters.cuh"
#include "ptx/conversions.cuh"
#include "ptx/copies.cuh"
#include "ptx/counters.cuh"
#include "ptx/functions.cuh"
#include "ptx/global_memory.cuh"
#include "ptx/lanes.cuh"
#include "ptx/matrices.cuh"
#include "ptx/messages.cuh"
#include "ptx/products.cuh"
#include "ptx/shared_memory.cuh"
#include "ptx/threads.cuh"
#include "ptx/transfers.cuh"
#include "ptx/types.cuh"
#include "ptx/warpgroups.cuh"
#endif
