// The twin of ptx/lanes.cuh.
#pragma once

#include "emulate/ptx/threads.hpp"
#include "emulate/ptx/types.hpp"

namespace tilesmith {

inline bool any_lane(bool value, Site site = Site::current()) { return emulate::vote_any(value, site); }
inline unsigned ballot(bool value, Site site = Site::current()) { return emulate::vote_lanes(value, site); }
inline int lowest_bit(unsigned bits) { return __builtin_ctz(bits); }
inline float shuffle_xor(float value, int lanes, Site site = Site::current()) {
    return __uint_as_float(emulate::exchange_lanes(__float_as_uint(value), static_cast<unsigned>(lanes), site));
}

inline unsigned shuffle(unsigned value, int lane, Site site = Site::current()) {
    return emulate::exchange_lanes(value, thread_index() % 32 ^ static_cast<unsigned>(lane) % 32, site);
}
inline int least_of_lanes(int value, Site site = Site::current()) {
    for (unsigned lanes = 16; lanes > 0; lanes /= 2) {
        const int other = static_cast<int>(emulate::exchange_lanes(static_cast<unsigned>(value), lanes, site));
        value = other < value ? other : value;
    }
    return value;
}
inline int greatest_of_lanes(int value, Site site = Site::current()) {
    for (unsigned lanes = 16; lanes > 0; lanes /= 2) {
        const int other = static_cast<int>(emulate::exchange_lanes(static_cast<unsigned>(value), lanes, site));
        value = other > value ? other : value;
    }
    return value;
}
inline unsigned uniform(unsigned value, Site site = Site::current()) { return shuffle(value, 0, site); }
inline float shuffle(float value, int lane, Site site = Site::current()) {
    return shuffle_xor(value, static_cast<int>(thread_index() % 32) ^ lane, site);
}
inline double shuffle_xor(double value, int lanes, Site site = Site::current()) {
    unsigned words[2];
    __builtin_memcpy(words, &value, sizeof words);
    for (unsigned& word : words) word = emulate::exchange_lanes(word, static_cast<unsigned>(lanes), site);
    __builtin_memcpy(&value, words, sizeof words);
    return value;
}

inline double shuffle(double value, int lane, Site site = Site::current()) {
    return shuffle_xor(value, static_cast<int>(thread_index() % 32) ^ lane, site);
}

}  // namespace tilesmith
