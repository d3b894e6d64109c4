// wgmma, a warp at a time: each of a warpgroup's four warps makes its own 16 rows of the product. PTX ISA, "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Instructions".
//
// An operand in shared memory is read when the product is issued, to see that it is there, and again as late as the rules allow,
// which is when the warp waits for its group: what has been overwritten meanwhile is a race or a wrong result. From one to the
// other the accumulators are NaN of a pattern that must not have been touched.
#pragma once

#include <bit>
#include <map>

#include "numbers.hpp"
#include "shared.hpp"
#include "warp.hpp"

namespace tilesmith::emulate {

[[noreturn]] inline void product_fault(const std::string& what, const Site& site) {
    throw Fault{what + "\n  " + describe_fully(*running) + " at " + describe(site)};
}

/// A matrix descriptor, read back from its bits.
struct CoreMatrices {
    unsigned first, along_k, along_rows;

    CoreMatrices(std::uint64_t bits, const Site& site)
        : first(static_cast<unsigned>(bits & 0x3fff) << 4), along_k(static_cast<unsigned>(bits >> 16 & 0x3fff) << 4),
          along_rows(static_cast<unsigned>(bits >> 32 & 0x3fff) << 4) {
        if (bits >> 46 != 0) product_fault("a matrix descriptor with a base offset or swizzling, which the emulator does not know", site);
    }
    /// Where 8 k of a row begin.
    unsigned at(unsigned row, unsigned eight) const { return first + eight * along_k + row / 8 * along_rows + row % 8 * 16; }
};

/// 8 k of a row. `thread`: the lane that counts as the reader.
inline void read_row(const Thread& thread, const CoreMatrices& from, unsigned row, unsigned eight, unsigned short (&words)[8],
                     const Site& site) {
    SharedMemory& shared = *thread.block->shared;
    shared.check_fenced(thread, from.at(row, eight), 16, site);
    shared.read(thread, from.at(row, eight), words, 16, site);
}

/// The k of a warp's rows of `a`, from registers or shared memory, and of the columns of b. decode: null where only the reading counts.
struct ProductFactors {
    float a[16][16], b[256][16];

    ProductFactors(const Warp& warp, const std::array<const PendingProduct*, warp_size>& lanes, const Site& site) {
        const WarpgroupProduct& product = lanes[0]->product;
        const Thread* threads = &warp.block->threads[warp.index * warp_size];
        unsigned short words[8];
        const auto put = [&](float(&row)[16], unsigned eight) {
            for (unsigned i = 0; i < 8; ++i) row[8 * eight + i] = product.decode(words[i]);
        };
        if (product.a_in_registers) {
            for (unsigned lane = 0; lane < warp_size; ++lane)
                for (unsigned i = 0; i < 4; ++i)
                    for (unsigned half = 0; half < 2; ++half)
                        a[lane / 4 + 8 * (i % 2)][2 * (lane % 4) + 8 * (i / 2) + half] =
                            product.decode(lanes[lane]->product.a[i] >> 16 * half & 0xffffu);
        } else {
            const CoreMatrices from(product.a_descriptor, site);
            for (unsigned row = 0; row < 16; ++row)
                for (unsigned eight = 0; eight < 2; ++eight) {
                    read_row(threads[row], from, warp.index % 4 * 16 + row, eight, words, site);
                    put(a[row], eight);
                }
        }
        const CoreMatrices from(product.b_descriptor, site);
        for (unsigned column = 0; column < product.columns; ++column)
            for (unsigned eight = 0; eight < 2; ++eight) {
                read_row(threads[column % warp_size], from, column, eight, words, site);
                put(b[column], eight);
            }
    }
};

constexpr unsigned in_flight = 0x7fc0deadu;  // what accumulators hold meanwhile

inline bool is_pending(const Thread& thread, const float* d) {
    for (const PendingProduct& pending : thread.products)
        if (pending.product.d == d) return true;
    return false;
}

/// The accumulators of the calling lane leave its hands.
inline PendingProduct begin_product(Thread& thread, const WarpgroupProduct& product, const Site& site) {
    PendingProduct pending{product, thread.product_groups, {}, site};
    const unsigned count = product.columns / 2;
    if (is_pending(thread, product.d)) {
        for (unsigned i = 0; i < count; ++i)
            if (std::bit_cast<unsigned>(product.d[i]) != in_flight)
                product_fault("accumulators have been written while a wgmma has them; a wgmma_wait is missing", site);
    } else {
        if (!thread.products_fenced)
            product_fault("a wgmma_fence is missing between what touched these accumulators and this wgmma", site);
        pending.begin.assign(product.d, product.d + count);
        for (unsigned i = 0; i < count; ++i) product.d[i] = std::bit_cast<float>(in_flight);
    }
    return pending;
}

void issue_warpgroup_product(const WarpgroupProduct& product, const Site& site) {
    scheduler->before_access(site);
    Thread& thread = *running;
    if (thread.block->threads.size() < 128 * (thread.index / 128 + 1))
        product_fault("a warpgroup is four warps from a multiple of four on", site);
    const PendingProduct pending = begin_product(thread, product, site);
    thread.products.push_back(pending);
    char nothing = 0;
    collective("wgmma", site, pending, nothing, [&site](Warp& warp) {
        std::array<const PendingProduct*, warp_size> lanes;
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            lanes[lane] = &input<PendingProduct>(warp, lane);
            if (lanes[lane]->product.b_descriptor != lanes[0]->product.b_descriptor ||
                lanes[lane]->product.a_descriptor != lanes[0]->product.a_descriptor ||
                lanes[lane]->product.adds != lanes[0]->product.adds)
                product_fault("the lanes of a warp give a wgmma different operands", site);
        }
        const ProductFactors there(warp, lanes, site);
        static_cast<void>(there);
    });
}

void fence_products(const Site& site) {
    char nothing = 0;
    running->products_fenced = true;
    collective("wgmma_fence", site, nothing, nothing, [](Warp&) {});
}

void commit_products(const Site& site) {
    char nothing = 0;
    ++running->product_groups;
    collective("wgmma_commit", site, nothing, nothing, [](Warp&) {});
}

/// The warp's product number `index` of those that run, added to the sums of each lane.
inline void make_product(const Warp& warp, std::size_t index) {
    Thread* threads = &warp.block->threads[warp.index * warp_size];
    std::array<const PendingProduct*, warp_size> lanes;
    for (unsigned lane = 0; lane < warp_size; ++lane) lanes[lane] = &threads[lane].products[index];
    const ProductFactors factors(warp, lanes, lanes[0]->site);
    for (unsigned lane = 0; lane < warp_size; ++lane) {
        PendingProduct& pending = threads[lane].products[index];
        const WarpgroupProduct& product = pending.product;
        for (unsigned i = 0; i < product.columns / 2; ++i) {
            const float* row = factors.a[lane / 4 + 8 * (i / 2 % 2)];
            const float* column = factors.b[i / 4 * 8 + 2 * (lane % 4) + i % 2];
            double sum = product.adds ? pending.begin[i] : 0.0;
            for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * column[k];
            pending.begin[i] = static_cast<float>(sum);
        }
        // On to the next product with these accumulators, or back into them.
        bool last = true;
        for (std::size_t later = index + 1; later < threads[lane].products.size() && last; ++later)
            if (threads[lane].products[later].product.d == product.d) {
                threads[lane].products[later].begin = pending.begin;
                last = false;
            }
        if (last)
            for (unsigned i = 0; i < product.columns / 2; ++i) {
                if (std::bit_cast<unsigned>(product.d[i]) != in_flight)
                    throw Fault{"accumulators have been written while a wgmma has them; a wgmma_wait is missing\n  " +
                                describe_fully(threads[lane]) + " at " + describe(pending.site)};
                product.d[i] = pending.begin[i];
            }
    }
}

void wait_for_products(unsigned pending, const Site& site) {
    scheduler->before_access(site);
    running->products_fenced = false;
    char nothing = 0;
    collective("wgmma_wait", site, nothing, nothing, [pending](Warp& warp) {
        Thread* threads = &warp.block->threads[warp.index * warp_size];
        const unsigned groups = threads[0].product_groups, done = groups > pending ? groups - pending : 0;
        std::size_t made = 0;
        for (; made < threads[0].products.size() && threads[0].products[made].group < done; ++made) make_product(warp, made);
        for (unsigned lane = 0; lane < warp_size; ++lane) {
            auto& products = threads[lane].products;
            products.erase(products.begin(), products.begin() + static_cast<std::ptrdiff_t>(made));
        }
    });
}

void fence_shared(const Site& site) {
    scheduler->before_access(site);
    running->shared_fenced = running->team->clocks.now(running->rank);
}

}  // namespace tilesmith::emulate
