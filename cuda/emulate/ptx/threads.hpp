// The twin of ptx/threads.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline unsigned thread_index() { return emulate::place().thread; }
inline unsigned block_x() { return emulate::place().block_x; }
inline unsigned block_y() { return emulate::place().block_y; }
inline unsigned long long read_clock() { return emulate::ticks(); }
inline unsigned long long read_nanoseconds() { return emulate::ticks(); }
inline unsigned blocks_x() { return emulate::place().blocks_x; }

inline int opaque(int value) { return value; }
inline unsigned word_after(float earlier, unsigned word) { return word; }
inline bool seldom(bool condition) { return condition; }

}  // namespace tilesmith
