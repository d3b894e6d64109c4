// h, or backward the gates' gradients, on its way between the blocks that share a head, through global memory, which is to say
// through L2: one place for all, where the warps that make h of a unit store it, and from where every warp that multiplies it
// loads it, as words that say by themselves that they are there (ptx/messages.cuh). Nothing else tells a block that a step is
// over.
//
// All of it is poison when the kernel begins; the executor sees to that before every launch.
//
// Eight slots, of which each holds one step's h; five would do, and a power of two takes fewer registers. Who has sent h(t + 1),
// and so has seen that all of h(t) has come, poisons its own words of h(t - 1): h(t) comes from warps that have all read
// h(t - 1). Then the block meets, one of its warps fences for all of it, and it meets again before anybody sends h(t + 3).
// With five slots that slot takes h(t + 4). A reader that waits for h(t + 4) has seen h(t + 3), which was sent after the fence:
// so it cannot find h(t - 1) there any more. With four slots it would have seen but h(t + 2), which is sent while the fence is
// under way. Where warps of their own step, the one that fences learns of the poison only when its block has sent h(t + 2), and
// fences while h(t + 3) is sent: six would do.
#pragma once

#include "factors.cuh"
#include "lane_elements.cuh"
#include "recurrence.cuh"

namespace tilesmith {

/// h of `rows` sequences of one head: `sent_units` come from the blocks and the rest, up to padded_k, is zero. A warp that
/// sends owns 8 units of `sent_rows` sequences. Of several arrays, such as the gates' gradients, one follows the other.
template <class Type, FixedShape shape, int rows, int sent_rows, int sent_units, int padded_k, int arrays = 1>
struct GridMail {
    using Elements = LaneElements<shape, 8, sent_rows, sent_units>;
    static constexpr bool sixteen_bits = element_bytes<Type> == 2;
    static constexpr int chunk = chunk_elements<Type>;
    static constexpr int slots = 8;
    static constexpr int array_bytes = sent_units / chunk * rows * chunk_bytes;
    static constexpr int slot_bytes = padded_k / chunk * rows * chunk_bytes;
    static constexpr int bytes = slots * slot_bytes;  // of a head and a tile of the batch

    static_assert(sent_units % 8 == 0 && sent_units >= shape.head_dim && arrays * sent_units <= padded_k,
                  "whole chunks of h come from the blocks");

    /// A slot: [k-chunk][sequence], chunks of 16 bytes: 8 words of 16 bits, or 4 floats. Which column of the matrix tiles a sequence has is such that the columns 2j,
    /// or 2j + 1, are those of one warp that sends.
    struct Layout {
        TILESMITH_DEVICE static constexpr int offset(int k_chunk, int column) {
            const int sequence = rows > 4 && sent_rows == 4 ? column % 2 * 4 + column / 2 : column;
            return (k_chunk * rows + sequence) * chunk_bytes;
        }
        TILESMITH_DEVICE static constexpr int step(int k_tiles, int column_tile) {
            return (4 * rows * k_tiles + 8 * column_tile) * chunk_bytes;
        }
    };

    // Of 16 bits a word is two neighbouring units of one sequence, which two lanes have (g even and odd). Of two of its elements
    // a lane sends the word of one, its neighbour that of the other; a single one is sent by the even lane. A float is a word.
    static constexpr int elements = Elements::column_tiles * Elements::columns;
    static constexpr bool shared_out = sixteen_bits && elements % 2 == 0;
    static constexpr int words = !sixteen_bits ? elements : shared_out ? elements / 2 : 1;
    static_assert(!sixteen_bits || shared_out || elements == 1, "an odd number of elements is one");

    unsigned char* at;  // the slots of the head and tile
    bool odd, sends;
    int word_offset[words];

    /// Where h(t) goes, after the beginning of the slots.
    TILESMITH_DEVICE static int slot_of(int t) { return static_cast<int>(static_cast<unsigned>(t) % slots) * slot_bytes; }

    /// first: of the sequences of the block, the first that the warp owns.
    template <class Own>
    TILESMITH_DEVICE void prepare(void* slots_of_tile, const Own& own, int first) {
        at = static_cast<unsigned char*>(slots_of_tile);
        odd = own.g % 2 != 0;
        sends = shared_out || !sixteen_bits || !odd;
#pragma unroll
        for (int word = 0; word < words; ++word) {
            const int element = shared_out ? 2 * word + (odd ? 1 : 0) : word;
            const int sequence = first + own.row(element / Elements::columns, element % Elements::columns);
            const int word_of_chunk = sixteen_bits ? own.g / 2 : own.g % chunk;
            word_offset[word] = (own.unit(0) / chunk * rows + sequence) * chunk_bytes + word_of_chunk * 4;
        }
    }

    /// Send zeros for what lies beyond the units, once for all steps; by a thread, of `threads`.
    TILESMITH_DEVICE void fill(int thread, int threads) const {
        constexpr int first = arrays * array_bytes / 4, count = slot_bytes / 4 - first;
        for (int i = thread; i < slots * count; i += threads) send_global_32(at + i / count * slot_bytes + (first + i % count) * 4, 0);
    }

    /// Send the warp's elements, value(array, column_tile, column), to the slot at `slot_offset`: as what is multiplied, so
    /// that nobody who polls has to round.
    template <class Value>
    TILESMITH_DEVICE void send(int slot_offset, Value value) const {
#pragma unroll
        for (int array = 0; array < arrays; ++array)
#pragma unroll
            for (int word = 0; word < words; ++word) {
                if constexpr (!sixteen_bits) {
                    const float sent = __uint_as_float(factor<Type>(__float_as_uint(of_element(value, array, word))));
                    send_global_32(at + slot_offset + array * array_bytes + word_offset[word], as_message(sent));
                } else {
                    const float first = of_element(value, array, shared_out ? 2 * word : 0);
                    const float second = of_element(value, array, shared_out ? 2 * word + 1 : 0);
                    const float own = odd ? second : first;
                    const float neighbours = shuffle_xor(odd ? first : second, 4);
                    const unsigned packed = pack<Type>(odd ? neighbours : own, odd ? own : neighbours);  // makes no NaN but 0x7fff
                    if (sends) send_global_32(at + slot_offset + array * array_bytes + word_offset[word], packed);
                }
            }
    }

    template <class Value>
    TILESMITH_DEVICE static float of_element(Value value, int array, int element) {
        return value(array, element / Elements::columns, element % Elements::columns);
    }

    /// Poison what this lane has sent to the slot at `slot_offset`; to be followed by a fence, of this thread or, between two
    /// meetings, of one of the block.
    TILESMITH_DEVICE void poison_sent(int slot_offset) const {
        if (sends)
#pragma unroll
            for (int array = 0; array < arrays; ++array)
#pragma unroll
                for (int word = 0; word < words; ++word)
                    poison_global_32(at + slot_offset + array * array_bytes + word_offset[word]);
    }

    /// Load a lane's words of the slot at `slot`, as Matrix reads them, and wait until all that the warp loads have come.
    /// addressed_once: with one address for all words of a lane, rather than one each, which takes registers.
    template <class Matrix, bool addressed_once = false>
    TILESMITH_DEVICE static void wait(uint4 (&chunks)[Matrix::reads][Matrix::column_tiles], const unsigned char* slot,
                                      const typename Matrix::template Places<Layout>& places) {
        for (unsigned rounds = 0;;) {
            unsigned last = 0;
#pragma unroll
            for (int read = 0; read < Matrix::reads; ++read)
#pragma unroll
                for (int column_tile = 0; column_tile < Matrix::column_tiles; ++column_tile) {
                    static_assert(!addressed_once || !Matrix::paired, "k-tiles are read one after another");
                    if constexpr (addressed_once)
                        chunks[read][column_tile] = poll_global_128(slot + places.even + Layout::step(read, column_tile));
                    else
                        chunks[read][column_tile] = poll_global_128(slot + places.at(read * Matrix::k_tiles_per_read, column_tile));
                }
#pragma unroll
            for (int read = 0; read < Matrix::reads; ++read)
#pragma unroll
                for (int column_tile = 0; column_tile < Matrix::column_tiles; ++column_tile)
                    last = max(last, newest(chunks[read][column_tile]));
            if (!any_lane(last == poison)) return;
            poll_again(rounds);
        }
    }

    /// Poison where words of a chunk are still to come.
    TILESMITH_DEVICE static unsigned newest(uint4 chunk) { return max(max(chunk.x, chunk.y), max(chunk.z, chunk.w)); }
};

}  // namespace tilesmith
