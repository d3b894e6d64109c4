// The emulated twin of ptx.cuh: the same functions, each with the meaning the PTX ISA gives it, on fibers.
//
// Names, parameters and namespaces are those of ptx.cuh; `site` is the place of the call, for reports.
#pragma once

#include <bit>

#include "calls.hpp"
#include "numbers.hpp"
#include "types.hpp"

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

// ---- threads, warps, blocks ----

inline unsigned thread_index() { return emulate::place().thread; }
inline unsigned block_x() { return emulate::place().block_x; }
inline unsigned block_y() { return emulate::place().block_y; }
inline unsigned long long read_clock() { return emulate::ticks(); }
inline unsigned long long read_nanoseconds() { return emulate::ticks(); }
inline unsigned blocks_x() { return emulate::place().blocks_x; }

inline int opaque(int value) { return value; }
inline bool seldom(bool condition) { return condition; }

// ---- barriers ----

inline void sync_block(Site site = Site::current()) { emulate::sync_whole_block(site); }
inline void sync_named(unsigned id, unsigned threads, Site site = Site::current()) {
    emulate::sync_named_barrier(id, threads, site);
}
inline void arrive_named(unsigned id, unsigned threads, Site site = Site::current()) {
    emulate::arrive_named_barrier(id, threads, site);
}
inline void sync_warp(Site site = Site::current()) { emulate::sync_whole_warp(site); }
inline bool any_lane(bool value, Site site = Site::current()) { return emulate::vote_any(value, site); }
inline unsigned ballot(bool value, Site site = Site::current()) { return emulate::vote_lanes(value, site); }
inline int lowest_bit(unsigned bits) { return std::countr_zero(bits); }
inline float shuffle_xor(float value, int lanes, Site site = Site::current()) {
    return __uint_as_float(emulate::exchange_lanes(__float_as_uint(value), static_cast<unsigned>(lanes), site));
}

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

// ---- shared memory ----

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
template <class Type>
Type load_global(const void* address, const Site& site) {
    Type value;
    read_global(address, &value, sizeof value, site);
    return value;
}
template <class Type>
void store_global(void* address, const Type& value, const Site& site) {
    write_global(address, &value, sizeof value, site);
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

// ---- clusters of blocks ----

inline unsigned cluster_rank() { return emulate::place().cluster_rank; }
inline unsigned cluster_blocks() { return emulate::place().cluster_blocks; }
inline void sync_cluster(Site site = Site::current()) { emulate::sync_whole_cluster(site); }
inline float4 load_cluster_float4(SharedAddress address, unsigned rank, Site site = Site::current()) {
    float4 value;
    emulate::read_cluster(rank, address, &value, sizeof value, site);
    return value;
}

// ---- messages ----

using ClusterAddress = unsigned;
constexpr unsigned poison = emulate::poison;

inline ClusterAddress cluster_address(SharedAddress address, unsigned rank, Site site = Site::current()) {
    return emulate::map_to_cluster(address, rank, site);
}
inline void send_32(ClusterAddress to, unsigned word, Site site = Site::current()) {
    emulate::send_word(to, word, site);
}
inline void send_64(ClusterAddress to, uint2 words, Site site = Site::current()) {
    emulate::send_word(to, words.x, site);
    emulate::send_word(to + 4, words.y, site);
}
inline void send_128(ClusterAddress to, uint4 words, Site site = Site::current()) {
    send_64(to, uint2{words.x, words.y}, site);
    send_64(to + 8, uint2{words.z, words.w}, site);
}
inline unsigned poll_32(SharedAddress address, Site site = Site::current()) {
    unsigned value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline uint2 poll_64(SharedAddress address, Site site = Site::current()) {
    uint2 value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline uint4 poll_128(SharedAddress address, Site site = Site::current()) {
    uint4 value;
    emulate::poll_shared(address, &value, sizeof value, site);
    return value;
}
inline void pause(unsigned clocks) { static_cast<void>(clocks); }
inline void poll_again(unsigned& rounds, Site site = Site::current()) {
    ++rounds;
    emulate::wait_for_message(site);
}
inline void poison_128(SharedAddress address, Site site = Site::current()) {
    emulate::poison_shared(address, 16, site);
}

// ---- global memory ----

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

// ---- messages through global memory ----

inline void send_global_32(void* to, unsigned word, Site site = Site::current()) {
    emulate::send_global_word(to, word, site);
}
inline uint4 poll_global_128(const void* address, Site site = Site::current()) {
    uint4 value;
    emulate::poll_global(address, &value, sizeof value, site);
    return value;
}
inline void poison_global_32(void* address, Site site = Site::current()) {
    emulate::poison_global(address, 4, site);
}
inline void fence_global(Site site = Site::current()) { emulate::fence(site); }

// ---- counters in global memory ----

inline void signal_global(unsigned* counter, Site site = Site::current()) { emulate::signal_counter(counter, site); }
inline unsigned poll_signals(const unsigned* counter, Site site = Site::current()) {
    return emulate::poll_counter(counter, site);
}
inline float load_stored_float(const void* address, Site site = Site::current()) {
    float value;
    emulate::read_stored(address, &value, sizeof value, site);
    return value;
}

inline double load_stored_double(const void* address, Site site = Site::current()) {
    double value;
    emulate::read_stored(address, &value, sizeof value, site);
    return value;
}

// ---- asynchronous copies ----

template <int Bytes>
void cp_async(SharedAddress destination, const void* source, Site site = Site::current()) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    emulate::issue_copy(destination, source, Bytes, site);
}
template <int Bytes>
void cp_async_or_zeros(SharedAddress destination, const void* source, bool real, Site site = Site::current()) {
    static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    emulate::issue_copy(destination, real ? source : nullptr, Bytes, site);
}
inline void cp_async_commit() { emulate::commit_copies(); }
template <int Pending>
void cp_async_wait() {
    static_assert(Pending >= 0, "a number of groups");
    emulate::wait_for_copies(Pending);
}

// ---- warp-level matrices ----

inline void ldmatrix_x1_trans(unsigned& out, SharedAddress row, Site site = Site::current()) {
    out = emulate::load_matrices_transposed(1, row, site).words[0];
}
inline void ldmatrix_x2_trans(unsigned (&out)[2], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices_transposed(2, row, site);
    for (int i = 0; i < 2; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x4_trans(unsigned (&out)[4], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices_transposed(4, row, site);
    for (int i = 0; i < 4; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x2(unsigned (&out)[2], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices(2, row, site);
    for (int i = 0; i < 2; ++i) out[i] = loaded.words[i];
}
inline void ldmatrix_x4(unsigned (&out)[4], SharedAddress row, Site site = Site::current()) {
    const auto loaded = emulate::load_matrices(4, row, site);
    for (int i = 0; i < 4; ++i) out[i] = loaded.words[i];
}
inline void stmatrix_x1_trans(SharedAddress row, unsigned words, Site site = Site::current()) {
    emulate::store_matrices_transposed(1, row, {{words}}, site);
}
inline void stmatrix_x2_trans(SharedAddress row, const unsigned (&words)[2], Site site = Site::current()) {
    emulate::store_matrices_transposed(2, row, {{words[0], words[1]}}, site);
}
inline void stmatrix_x4_trans(SharedAddress row, const unsigned (&words)[4], Site site = Site::current()) {
    emulate::store_matrices_transposed(4, row, {{words[0], words[1], words[2], words[3]}}, site);
}
inline unsigned movmatrix_trans(unsigned pair, Site site = Site::current()) {
    return emulate::transpose_matrix(pair, site);
}

namespace emulate {
template <class Type>
struct Format;
template <>
struct Format<bf16> {
    static float decode(unsigned bits) { return from_bfloat16(bits); }
    static unsigned short encode(float value) { return to_bfloat16(value); }
};
template <>
struct Format<fp16> {
    static float decode(unsigned bits) { return from_float16(bits); }
    static unsigned short encode(float value) { return to_float16(value); }
};
}  // namespace emulate

template <class Type>
void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4],
                  Site site = Site::current()) {
    const emulate::MatrixOperands operands{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    const auto result = emulate::multiply_16x8x16(operands, emulate::Format<Type>::decode, site);
    for (int i = 0; i < 4; ++i) d[i] = result.d[i];
}

template <class Type>
void mma_m16n8k8(float (&d)[4], const unsigned (&a)[2], unsigned b, const float (&c)[4], Site site = Site::current()) {
    const unsigned padded[4] = {a[0], a[1], 0, 0};
    mma_m16n8k16<Type>(d, padded, b, 0, c, site);
}

inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, const float (&c)[4],
                             Site site = Site::current()) {
    const emulate::MatrixOperands operands{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    const auto result = emulate::multiply_16x8x8_tf32(operands, site);
    for (int i = 0; i < 4; ++i) d[i] = result.d[i];
}

inline void mma_m8n8k4_f64(double& d0, double& d1, double a, double b, Site site = Site::current()) {
    const emulate::DoubleOperands operands{a, b, {d0, d1}};
    const auto result = emulate::multiply_8x8x4_f64(operands, site);
    d0 = result.d[0], d1 = result.d[1];
}

// ---- conversions ----

inline unsigned round_tf32(unsigned word) {
    const bool finite = (word & 0x7f800000u) != 0x7f800000u;
    const bool nan = !finite && (word & 0x7fffffu) != 0;
    return nan ? 0x7fffffffu : finite ? (word + 0x1000u) & 0xffffe000u : word;
}

template <class Type>
unsigned short to_16(float value) {
    return emulate::Format<Type>::encode(value);
}
template <class Type>
unsigned pack(float low, float high) {
    return to_16<Type>(low) | static_cast<unsigned>(to_16<Type>(high)) << 16;
}
template <class Type>
float unpack_low(unsigned pair) {
    return emulate::Format<Type>::decode(pair & 0xffffu);
}
template <class Type>
float unpack_high(unsigned pair) {
    return emulate::Format<Type>::decode(pair >> 16);
}

// ---- special functions ----

inline float tanh_approx(float x) { return __builtin_tanhf(x); }
inline float ex2_approx(float x) { return emulate::flush(__builtin_exp2f(emulate::flush(x))); }
inline float lg2_approx(float x) { return __builtin_log2f(emulate::flush(x)); }
inline float rcp_approx(float x) { return emulate::flush(1.0f / emulate::flush(x)); }
inline float sqrt_approx(float x) { return __builtin_sqrtf(emulate::flush(x)); }

// ---- the same functions as a library has them ----

inline float tanh_library(float x) { return __builtin_tanhf(x); }
inline float exp_library(float x) { return __builtin_expf(x); }
inline float log_library(float x) { return __builtin_logf(x); }
inline float log1p_library(float x) { return __builtin_log1pf(x); }
inline float pow_library(float x, float y) { return __builtin_powf(x, y); }
inline float sqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float rcp_rn(float x) { return 1.0f / x; }

inline double tanh_library(double x) { return __builtin_tanh(x); }
inline double exp_library(double x) { return __builtin_exp(x); }
inline double log_library(double x) { return __builtin_log(x); }
inline double log1p_library(double x) { return __builtin_log1p(x); }
inline double pow_library(double x, double y) { return __builtin_pow(x, y); }
inline double sqrt_rn(double x) { return __builtin_sqrt(x); }
inline double rcp_rn(double x) { return 1.0 / x; }

// ---- arithmetic ----

inline float fma_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float max_rn(float a, float b) { return __builtin_fmaxf(a, b); }
inline float min_rn(float a, float b) { return __builtin_fminf(a, b); }
inline float abs_rn(float a) { return __builtin_fabsf(a); }
inline double abs_rn(double a) { return __builtin_fabs(a); }

}  // namespace tilesmith
