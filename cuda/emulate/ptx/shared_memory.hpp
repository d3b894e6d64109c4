// The twin of ptx/shared_memory.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline SharedAddress shared_memory() { return emulate::shared_base; }

namespace emulate {
template <class Type>
Type load_shared(SharedAddress address, const Site& site) {
    Type value;
    read_shared(address, &value, sizeof value, site);
    return value;
}
template <class Type>
void store_shared(SharedAddress address, const Type& value, const Site& site) {
    write_shared(address, &value, sizeof value, site);
}
}  // namespace emulate

inline unsigned load_shared_8(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<unsigned char>(address, site);
}
inline unsigned short load_shared_16(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<unsigned short>(address, site);
}
inline unsigned load_shared_32(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<unsigned>(address, site);
}
inline uint2 load_shared_64(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<uint2>(address, site);
}
inline uint4 load_shared_128(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<uint4>(address, site);
}
inline float4 load_shared_float4(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<float4>(address, site);
}
inline double load_shared_double(SharedAddress address, Site site = Site::current()) {
    return emulate::load_shared<double>(address, site);
}
inline void store_shared_16(SharedAddress address, unsigned short value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}
inline void store_shared_32(SharedAddress address, unsigned value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}
inline void store_shared_64(SharedAddress address, uint2 value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}
inline void store_shared_double(SharedAddress address, double value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}
inline void store_shared_128(SharedAddress address, uint4 value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}
inline void store_shared_float4(SharedAddress address, float4 value, Site site = Site::current()) {
    emulate::store_shared(address, value, site);
}

}  // namespace tilesmith
