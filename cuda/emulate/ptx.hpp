// The emulated twin of ptx.cuh: the same functions, each with the meaning the PTX ISA gives it, on fibers.
//
// Files, names, parameters and namespaces are those of ptx/; `site` is the place of the call, for reports.
#pragma once

#include "emulate/ptx/barriers.hpp"
#include "emulate/ptx/clusters.hpp"
#include "emulate/ptx/conversions.hpp"
#include "emulate/ptx/copies.hpp"
#include "emulate/ptx/counters.hpp"
#include "emulate/ptx/functions.hpp"
#include "emulate/ptx/global_memory.hpp"
#include "emulate/ptx/lanes.hpp"
#include "emulate/ptx/matrices.hpp"
#include "emulate/ptx/messages.hpp"
#include "emulate/ptx/products.hpp"
#include "emulate/ptx/shared_memory.hpp"
#include "emulate/ptx/threads.hpp"
#include "emulate/ptx/transfers.hpp"
#include "emulate/ptx/types.hpp"
#include "emulate/ptx/warpgroups.hpp"
