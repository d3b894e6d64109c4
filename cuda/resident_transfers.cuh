// What goes in and out of a block of the resident schedule's forward kernel in a step: Wx or x comes through a ring, some steps
// ahead, and results leave through the buffers in which h travels.
#pragma once

#include "array_writer.cuh"
#include "lane_stores.cuh"
#include "resident_sizes.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, ResidentTiling tiling, Save save, Stores how, Sequences sequences>
struct ResidentTransfers : ResidentSizes<Cell, Type, shape, tiling, save, sequences> {
    using Sizes = ResidentSizes<Cell, Type, shape, tiling, save, sequences>;
    using typename Sizes::Elements, typename Sizes::Layout, typename Sizes::Input, typename Sizes::Ring;
    using Sizes::D, Sizes::input_gates, Sizes::units, Sizes::element, Sizes::unit_warps, Sizes::threads, Sizes::rows, Sizes::row_bytes,
        Sizes::arrays, Sizes::hidden_bytes, Sizes::array_bytes, Sizes::buffer_bytes, Sizes::multiplies_input, Sizes::ring_at;

    // ---- the thread's place ----
    const ForwardArgumentsOf<Element<Type>>& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = static_cast<int>(thread_index()) / 32;
    const int unit_warp = tiling.k_split == 1 ? warp : warp % unit_warps;
    const int part = tiling.k_split == 1 ? 0 : warp / unit_warps;
    const int head = static_cast<int>(block_x());
    const int first_row = static_cast<int>(block_y()) * rows;
    const Elements own{.batch = in.batch, .warp = unit_warp, .head = head, .first_row = first_row, .g = g, .j = j,
                       .order = sequences.lengths ? in.order : nullptr};
    const SharedAddress shared = shared_memory();
    TileSequences<sequences, rows> tile{in.seq};
    Input input;

    TILESMITH_DEVICE ResidentTransfers(const ForwardArgumentsOf<Element<Type>>& in) : in(in) {}

    // ---- Wx or x in, results out ----

    /// Where a result goes in the first buffer: h (array 0) to what the next step reads, others where they are written
    /// out from.
    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        const int staged = hidden_bytes + (array - 1) * array_bytes + row * row_bytes + element * unit;
        return shared + (array == 0 ? Layout::place(unit, row) : staged);
    }

    Ring ring;
    LaneStores<Type, shape, units, rows, arrays, how> stores;
    ArrayWriter<shape, rows, threads, arrays, D, WholeBlock, Element<Type>> writer;

    TILESMITH_DEVICE void prepare_transfers() {
        const auto sequence_of = [&](int row) {
            return static_cast<long long>(sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1)));  // past the batch: any will do
        };
        if constexpr (multiplies_input)
            input.prepare(ring, shared + ring_at, [&](int row) { return in.x + sequence_of(row) * in.seq * shape.inputs; });
        else
            ring.prepare(shared + ring_at, [&](int gate, int row, int unit) {
                const long long step = sequence_of(row) * in.seq * input_gates + gate;
                return in.wx + (step * shape.heads + head) * D + unit;
            });
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        const auto target = [&](int array, int row, int unit) {
            return result_array<Cell, save>(in, array, array_elements) +
                   (static_cast<long long>(written_sequence(row)) * in.seq * shape.heads + head) * D + unit;
        };
        const auto locate = [&](int array, int row, int unit) { return result_at(array, row, unit); };
        stores.prepare(own, lane, locate);
        writer.prepare(in.batch - first_row, D, target, locate);
    }

    /// Of a row that is written out; past the batch none is.
    TILESMITH_DEVICE int written_sequence(int row) const {
        if constexpr (sequences.lengths) return sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
        return first_row + row;
    }

    TILESMITH_DEVICE void begin_copy(int stage_offset) {
        ring.begin_copy(stage_offset, [](int) { return multiplies_input ? shape.inputs : input_gates * shape.heads * D; });
    }

    TILESMITH_DEVICE void write_out(int buffer) {
        writer.write(buffer * buffer_bytes, [](int) { return shape.heads * D; });
    }
};

}  // namespace tilesmith
