// The twin of ptx/global_memory.cuh.
#pragma once

#include "emulate/ptx/types.hpp"

namespace tilesmith {

namespace emulate {
template <class Type>
Type load_global(const void* address, const Site& site) {
    Type value;
    read_global(address, &value, sizeof value, site);
    return value;
}
template <class Type>
Type load_stored(const void* address, const Site& site, bool cached = true) {
    Type value;
    read_stored(address, &value, sizeof value, cached, site);
    return value;
}
template <class Type>
void store_global(void* address, const Type& value, const Site& site) {
    write_global(address, &value, sizeof value, site);
}
}  // namespace emulate

inline unsigned load_global_8(const void* address, Site site = Site::current()) {
    return emulate::load_global<unsigned char>(address, site);
}
inline unsigned short load_global_16(const void* address, Site site = Site::current()) {
    return emulate::load_global<unsigned short>(address, site);
}
inline unsigned load_global_32(const void* address, Site site = Site::current()) {
    return emulate::load_global<unsigned>(address, site);
}
inline uint2 load_global_64(const void* address, Site site = Site::current()) {
    return emulate::load_global<uint2>(address, site);
}
inline uint4 load_global_128(const void* address, Site site = Site::current()) {
    return emulate::load_global<uint4>(address, site);
}
inline float load_global_float(const void* address, Site site = Site::current()) {
    return emulate::load_global<float>(address, site);
}
inline double load_global_double(const void* address, Site site = Site::current()) {
    return emulate::load_global<double>(address, site);
}
inline void store_global_16(void* address, unsigned short value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline void store_global_32(void* address, unsigned value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline void store_global_float(void* address, float value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline void store_global_double(void* address, double value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline void store_global_64(void* address, uint2 value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline void store_global_128(void* address, uint4 value, Site site = Site::current()) {
    emulate::store_global(address, value, site);
}
inline unsigned short load_stored_16(const void* address, Site site = Site::current()) {
    return emulate::load_stored<unsigned short>(address, site);
}
inline unsigned load_stored_32(const void* address, Site site = Site::current()) {
    return emulate::load_stored<unsigned>(address, site);
}
inline uint2 load_stored_64(const void* address, Site site = Site::current()) {
    return emulate::load_stored<uint2>(address, site);
}
inline uint4 load_stored_128(const void* address, Site site = Site::current()) {
    return emulate::load_stored<uint4>(address, site);
}
inline float load_stored_float(const void* address, Site site = Site::current()) {
    return emulate::load_stored<float>(address, site);
}
inline double load_stored_double(const void* address, Site site = Site::current()) {
    return emulate::load_stored<double>(address, site);
}
inline uint2 load_sent_64(const void* address, Site site = Site::current()) {
    return emulate::load_stored<uint2>(address, site, false);
}
inline uint4 load_sent_128(const void* address, Site site = Site::current()) {
    return emulate::load_stored<uint4>(address, site, false);
}

}  // namespace tilesmith
