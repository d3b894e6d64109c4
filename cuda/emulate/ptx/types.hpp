// The twin of ptx/types.cuh.
#pragma once

#include "emulate/calls.hpp"
#include "emulate/types.hpp"

#define TILESMITH_DEVICE inline

namespace tilesmith {

#ifndef TILESMITH_ARCHITECTURE
#define TILESMITH_ARCHITECTURE 90
#endif
inline constexpr int architecture = TILESMITH_ARCHITECTURE;

using SharedAddress = unsigned;
using emulate::Site;

struct bf16 {};
struct fp16 {};
struct fp32 {};
struct tf32 {};
struct fp64 {};

}  // namespace tilesmith
