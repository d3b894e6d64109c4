// What every device function is written in: its marker, the architecture, addresses, the types of elements.
#pragma once

#define TILESMITH_DEVICE __device__ __forceinline__

namespace tilesmith {

using SharedAddress = unsigned;

/// What the kernel is compiled for, ten times the compute capability: 75, 80, 90, ... Where an instruction is newer, the function
/// that stands for it here makes do with older ones, or the table of what there is says that it cannot
/// (profiles/architectures.yaml).
inline constexpr int architecture = __CUDA_ARCH__ / 10;

// The types a kernel may keep h, R and Wx in. They are tags: values of the two 16-bit types travel as raw 16-bit words.
// tf32 is float in memory: products take the nearest TF32 numbers of what lies there.
struct bf16 {};
struct fp16 {};
struct fp32 {};
struct tf32 {};
struct fp64 {};

}  // namespace tilesmith
