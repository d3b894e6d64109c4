// The twin of ptx/counters.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline void signal_global(unsigned* counter, Site site = Site::current()) { emulate::signal_counter(counter, site); }
inline unsigned poll_signals(const unsigned* counter, Site site = Site::current()) {
    return emulate::poll_counter(counter, site);
}

}  // namespace tilesmith
