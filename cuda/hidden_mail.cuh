// h on its way between the blocks of a cluster: every block has all of h in its own shared memory, in slots of which each
// holds one step's, and every warp sends the h of its units to all blocks as words that say by themselves that they are
// there (ptx/messages.cuh). Nothing else tells a block that a step is over.
//
// Four slots. A warp that has seen all of h(t) poisons a part of the slot of h(t - 1): h(t) comes from warps that have all
// read h(t - 1). The slot takes h(t + 3), which is sent by warps that have seen all of h(t + 2), and so messages that were
// sent after the poison. With three slots it would take h(t + 2), sent on the word of messages from before the poison.
#pragma once

#include "lane_elements.cuh"
#include "recurrence.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// h of `rows` sequences, of which `sent_units` come from the `cluster` blocks and the rest, up to padded_k, is zero. A warp
/// owns `units` of them.
template <class Type, FixedShape shape, int units, int rows, int cluster, int sent_units, int padded_k>
struct HiddenMail {
    static constexpr int D = shape.head_dim;
    using Elements = LaneElements<shape, units, rows, sent_units>;
    using Layout = MovingLayout<rows>;
    static constexpr int slots = 4;
    static constexpr int slot_bytes = Layout::bytes(padded_k);
    static constexpr int bytes = slots * slot_bytes;
    static constexpr int sent_chunks = Layout::bytes(sent_units) / chunk_bytes;  // of a slot, from its beginning

    static_assert(sent_units % 8 == 0 && sent_units >= D && sent_units <= padded_k, "whole chunks of h come from the blocks");

    // A word is two neighbouring units of one sequence, which two lanes have (g even and odd). Of two of its elements
    // a lane sends the words of one to all blocks, its neighbour those of the other; of a single one, to half of the blocks.
    static constexpr int elements = Elements::unit_groups * Elements::column_tiles * Elements::columns;
    static constexpr bool shared_out = elements % 2 == 0;
    static constexpr int words = shared_out ? elements / 2 : 1;
    static constexpr int destinations = shared_out ? cluster : ceil_div(cluster, 2);
    static_assert(shared_out || elements == 1, "an odd number of elements is one");

    SharedAddress at;
    bool odd;
    ClusterAddress to[destinations];
    int word_offset[words];
    SharedAddress poisons;  // the first chunk that this thread poisons, in the first slot

    /// Where h(t) goes, after the beginning of the slots.
    TILESMITH_DEVICE static int slot_of(int t) { return static_cast<int>(static_cast<unsigned>(t) % slots) * slot_bytes; }

    /// `shared`: where the slots begin. poisoner: the thread's number among those that poison, if it is one of them.
    TILESMITH_DEVICE void prepare(SharedAddress shared, int poisoner) {
        at = shared;
        poisons = shared + poisoner * chunk_bytes;
    }

    /// For a warp that sends.
    template <class Own>
    TILESMITH_DEVICE void prepare_sending(const Own& own, int rank) {
        odd = own.g % 2 != 0;
#pragma unroll
        for (int i = 0; i < destinations; ++i) {
            const int block = shared_out ? i : 2 * i + (odd ? 1 : 0);  // each begins with itself
            to[i] = cluster_address(at, (rank + block) % cluster);
        }
#pragma unroll
        for (int word = 0; word < words; ++word) {
            const int first = offset_of(own, shared_out ? 2 * word : 0), second = offset_of(own, shared_out ? 2 * word + 1 : 0);
            word_offset[word] = odd ? second : first;
        }
    }

    /// Where the word of a lane's element lies in a slot. Elements count columns first, unit groups last.
    template <class Own>
    TILESMITH_DEVICE static int offset_of(const Own& own, int element) {
        const int unit_group = element / (Elements::column_tiles * Elements::columns);
        const int row = own.row(element / Elements::columns % Elements::column_tiles, element % Elements::columns);
        return Layout::offset(own.unit(unit_group) / 8, row) + own.g / 2 * 4;
    }

    /// Fill the first slot with h before the first step and poison the others: by all threads, `threads` of them; to be
    /// followed by sync_cluster. initial: [B, H, D] or null; order: as LaneElements has it.
    TILESMITH_DEVICE void begin(const unsigned short* initial, int batch, int head, int first_row, int threads,
                                const int* order) const {
        for (int i = static_cast<int>(thread_index()); i < slot_bytes / chunk_bytes; i += threads) {
            const int unit_group = i / rows, row = i % rows;
            uint4 h{0, 0, 0, 0};
            if (initial != nullptr && 8 * unit_group < D && first_row + row < batch) {
                const int sequence = order == nullptr ? first_row + row : static_cast<int>(load_global_32(order + first_row + row));
                h = load_row_of_8<vector_width(D)>(
                    initial + (static_cast<long long>(sequence) * shape.heads + head) * D + 8 * unit_group, D - 8 * unit_group);
            }
            const SharedAddress to_first = at + Layout::offset(unit_group, row);
            store_shared_128(to_first, uint4{no_poison(h.x), no_poison(h.y), no_poison(h.z), no_poison(h.w)});
#pragma unroll
            for (int slot = 1; slot < slots; ++slot)
                if (i < sent_chunks)
                    poison_128(at + slot * slot_bytes + i * chunk_bytes);
                else
                    store_shared_128(at + slot * slot_bytes + i * chunk_bytes, uint4{0, 0, 0, 0});
        }
    }

    /// Two 16-bit values that may be any NaN, without the one that poison is made of.
    TILESMITH_DEVICE static unsigned no_poison(unsigned word) {
        if ((word & 0xffffu) == 0xffffu) word &= 0xffff7fffu;
        return word >> 16 == 0xffffu ? word & 0x7fffffffu : word;
    }

    TILESMITH_DEVICE static constexpr int column_tile_of(int element) { return element / Elements::columns % Elements::column_tiles; }

    /// Send h of the warp's elements of a column tile, value(unit_group, column), to the slot at `slot_offset` of every block.
    template <class Value>
    TILESMITH_DEVICE void send(int slot_offset, int column_tile, Value value) const {
#pragma unroll
        for (int word = 0; word < words; ++word) {
            if (column_tile_of(2 * word) != column_tile) continue;
            const float first = of_element(value, shared_out ? 2 * word : 0), second = of_element(value, shared_out ? 2 * word + 1 : 0);
            const float own = odd ? second : first;
            const float neighbours = shuffle_xor(odd ? first : second, 4);
            const unsigned packed = pack<Type>(odd ? neighbours : own, odd ? own : neighbours);  // makes no NaN but 0x7fff
            const int offset = slot_offset + word_offset[word];
#pragma unroll
            for (int i = 0; i < destinations; ++i)
                if (shared_out || cluster % 2 == 0 || !odd || i + 1 < destinations) send_32(to[i] + offset, packed);
        }
    }

    template <class Value>
    TILESMITH_DEVICE static float of_element(Value value, int element) {
        return value(element / (Elements::column_tiles * Elements::columns), element % Elements::columns);
    }

    /// Poison the slot at `slot_offset`: a thread's part, of `threads`. Every trip is known when this is compiled: a loop
    /// that is not costs more than what it stores.
    template <int threads>
    TILESMITH_DEVICE void poison(int slot_offset) const {
#pragma unroll
        for (int i = 0; i < ceil_div(sent_chunks, threads); ++i) {
            const SharedAddress chunk = poisons + i * threads * chunk_bytes;
            if ((i + 1) * threads <= sent_chunks || chunk < at + sent_chunks * chunk_bytes) poison_128(chunk + slot_offset);
        }
    }

    /// Whether words of a chunk are still to come.
    TILESMITH_DEVICE static unsigned newest(uint4 chunk) { return max(max(chunk.x, chunk.y), max(chunk.z, chunk.w)); }
};

}  // namespace tilesmith
