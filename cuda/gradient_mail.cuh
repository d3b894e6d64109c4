// The gradient of h on its way between the blocks of a cluster: every block has a partial sum for all units, over the gates
// of its own, and sends each to the block that owns the unit, which adds the partial sums of all. They are floats that say
// by themselves that they are there (ptx/messages.cuh). Nothing else tells a block that the others have made theirs.
//
// A tile of 16 units is sent as it lies in the accumulators of the warp that made it, and received by the lanes that own
// its elements, the same in the warp that owns its units: 8 or 16 bytes a lane, in a row. A group of 8 units is half of that.
//
// Three slots, of which each holds one step's. In every step a block receives, meets (sync_block), multiplies and sends;
// after that, before it meets again, it poisons the slot of the step before, which it has received. That slot takes what
// is sent three steps after, by blocks that have received what was sent two steps after, and this was sent after the
// poisoner's block had met again: after the poison. With two slots it would take what is sent on the word of messages from
// before the poison.
//
// Two slots suffice where the warps that receive poison what they have received, before their block meets again, and where
// they receive before their block meets and sends the next (grid_backward.cuh): a slot takes what is sent two steps after, by
// a block that has met since it received what was sent one step after, and this was sent after the poison.
//
// Where blocks are no cluster the same goes through global memory, which is to say through L2. There stores of two threads to
// one word are ordered by fences alone, and four slots are needed: who receives poisons what it has received while its block
// steps, then the block meets, one of its warps fences for all, and it meets again before it sends the gates' gradients that
// allow a slot to be used once more (grid_mail.cuh has the same rule for these).
#pragma once

#include "recurrence.cuh"

namespace tilesmith {

/// How partial sums travel: to the shared memory of a block of the cluster,
struct ThroughCluster {
    using To = ClusterAddress;
    using From = SharedAddress;
    TILESMITH_DEVICE static void send(To to, unsigned word) { send_32(to, word); }
    TILESMITH_DEVICE static void send(To to, uint2 words) { send_64(to, words); }
    TILESMITH_DEVICE static void send(To to, uint4 words) { send_128(to, words); }
    TILESMITH_DEVICE static void poll(From from, unsigned& word) { word = poll_32(from); }
    TILESMITH_DEVICE static void poll(From from, uint2& words) { words = poll_64(from); }
    TILESMITH_DEVICE static void poll(From from, uint4& words) { words = poll_128(from); }
};

/// or to global memory.
struct ThroughL2 {
    using To = unsigned char*;
    using From = unsigned char*;
    TILESMITH_DEVICE static void send(To to, unsigned word) { send_global_32(to, word); }
    TILESMITH_DEVICE static void send(To to, uint2 words) { send_global_64(to, words); }
    TILESMITH_DEVICE static void poll(From from, unsigned& word) { word = poll_global_32(from); }
    TILESMITH_DEVICE static void poll(From from, uint2& words) { words = poll_global_64(from); }
    TILESMITH_DEVICE static void poison(From from, unsigned) { poison_global_32(from); }
    TILESMITH_DEVICE static void poison(From from, uint2) { poison_global_64(from); }
};

/// Partial sums for `rows` sequences from each of `cluster` blocks, for the `unit_warps` warps of a block that own 16 units,
/// or 8. slots: as many steps have a place. Way: how they travel.
template <int rows, int cluster, int unit_warps, int units, int slots, class Way = ThroughCluster>
struct GradientMail {
    using To = typename Way::To;
    using From = typename Way::From;
    static constexpr bool half_filled = rows == 4;  // these take the even columns of a tile of 8
    static constexpr int column_tiles = half_filled ? 1 : rows / 8;
    static constexpr int columns = half_filled ? 1 : 2;
    static constexpr int words = units / 8 * columns;  // of a lane and column tile
    static constexpr int lane_bytes = 4 * words;
    static constexpr int tile_bytes = column_tiles * 32 * lane_bytes;  // what a block sends for 16 units
    static constexpr int slot_bytes = unit_warps * cluster * tile_bytes;  // [unit warp][source][column tile][lane]
    static constexpr int bytes = slots * slot_bytes;

    static constexpr int at_once = minimum(cluster, half_filled ? 16 : 8);  // sources that are waited for together
    static_assert((cluster & (cluster - 1)) == 0, "partial sums are added in pairs");

    /// What a warp has of 16 units: of a lane's element (unit_group, column tile, column) the sum [column tile][2 unit group + column].
    using Sums = float[column_tiles][4];

    /// The slot after the one at `offset`.
    TILESMITH_DEVICE static constexpr int after(int offset) { return offset == (slots - 1) * slot_bytes ? 0 : offset + slot_bytes; }

    /// The same by the number of the step, where slots are a power of two: in no register from step to step.
    TILESMITH_DEVICE static int slot_of(int n) { return static_cast<int>(static_cast<unsigned>(n) % slots) * slot_bytes; }

    /// Where block `source` sends for a warp's units, after the beginning of a slot.
    TILESMITH_DEVICE static constexpr int place(int unit_warp, int source, int lane) {
        return (unit_warp * cluster + source) * tile_bytes + lane * lane_bytes;
    }

    /// Send the sums of 16 units. `to`: the place in the block that owns them.
    TILESMITH_DEVICE static void send(To to, const Sums& sums) {
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile) {
            const float(&sum)[4] = sums[column_tile];
            if constexpr (words == 1)
                Way::send(to, as_message(sum[0]));
            else if constexpr (words == 2)
                Way::send(to + column_tile * 32 * lane_bytes, uint2{as_message(sum[0]), as_message(sum[half_filled ? 2 : 1])});
            else
                Way::send(to + column_tile * 32 * lane_bytes,
                          uint4{as_message(sum[0]), as_message(sum[1]), as_message(sum[2]), as_message(sum[3])});
        }
    }

    /// Wait for the sums of all blocks for a warp's 16 units, and add them, always in the same order. `at`: of the first block.
    TILESMITH_DEVICE static void receive(Sums& sums, From at) {
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
            for (int first = 0; first < cluster; first += at_once) {
                float parts[at_once][4];
                wait(parts, at + column_tile * 32 * lane_bytes + first * tile_bytes);
#pragma unroll
                for (int distance = 1; distance < at_once; distance *= 2)
#pragma unroll
                    for (int i = 0; i < at_once; i += 2 * distance)
#pragma unroll
                        for (int word = 0; word < 4; ++word) parts[i][word] += parts[i + distance < at_once ? i + distance : i][word];
#pragma unroll
                for (int word = 0; word < 4; ++word)
                    sums[column_tile][word] = first == 0 ? parts[0][word] : sums[column_tile][word] + parts[0][word];
            }
    }

    /// Poison a slot: a thread's part, of `threads`.
    TILESMITH_DEVICE static void poison_slot(SharedAddress slot, int thread, int threads) {
        for (int i = thread; i < slot_bytes / chunk_bytes; i += threads) poison_128(slot + i * chunk_bytes);
    }

    /// Poison what a warp has received: its part of a slot, by its lanes.
    TILESMITH_DEVICE static void poison_received(SharedAddress slot, int unit_warp, int lane) {
        constexpr int bytes_of_warp = cluster * tile_bytes;
        const SharedAddress at = slot + unit_warp * bytes_of_warp;
#pragma unroll
        for (int i = 0; i < ceil_div(bytes_of_warp, 32 * chunk_bytes); ++i)
            if ((i + 1) * 32 * chunk_bytes <= bytes_of_warp || (i * 32 + lane) * chunk_bytes < bytes_of_warp)
                poison_128(at + (i * 32 + lane) * chunk_bytes);
    }

    /// The same through L2. `at`: what receive takes, so that each lane poisons what it has received itself.
    TILESMITH_DEVICE static void poison_received(From at) {
#pragma unroll
        for (int source = 0; source < cluster; ++source)
#pragma unroll
            for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
                Way::poison(at + source * tile_bytes + column_tile * 32 * lane_bytes, typename Words<words>::Type{});
    }

  private:
    template <int count, class = void>
    struct Words {
        using Type = unsigned;
    };
    template <class Unused>
    struct Words<2, Unused> {
        using Type = uint2;
    };
    template <class Unused>
    struct Words<4, Unused> {
        using Type = uint4;
    };

    TILESMITH_DEVICE static void wait(float (&parts)[at_once][4], From at) {
        unsigned rounds = 0;
        for (;;) {
            bool missing = false;
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                uint4 part{0, 0, 0, 0};
                if constexpr (words == 1) {
                    Way::poll(at + i * tile_bytes, part.x);
                } else if constexpr (words == 2) {
                    uint2 two;
                    Way::poll(at + i * tile_bytes, two);
                    part.x = two.x;
                    (half_filled ? part.z : part.y) = two.y;
                } else {
                    Way::poll(at + i * tile_bytes, part);
                }
                missing |= max(max(part.x, part.y), max(part.z, part.w)) == poison;
                parts[i][0] = __uint_as_float(part.x), parts[i][1] = __uint_as_float(part.y);
                parts[i][2] = __uint_as_float(part.z), parts[i][3] = __uint_as_float(part.w);
            }
            if (!any_lane(missing)) return;
            poll_again(rounds);
        }
    }
};

}  // namespace tilesmith
