// What goes in and out of a block of the cluster schedule's forward kernel in a step: Wx comes through a ring, some steps ahead,
// and results leave through shared memory. By a transfer warp, or by each warp that owns units for itself.
#pragma once

#include "array_writer.cuh"
#include "cluster_forward_sizes.cuh"
#include "lane_stores.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, ClusterTiling tiling, Save save, Sequences sequences>
struct ClusterForwardTransfers : ClusterForwardSizes<Cell, Type, shape, tiling, save, sequences> {
    using Sizes = ClusterForwardSizes<Cell, Type, shape, tiling, save, sequences>;
    using typename Sizes::Elements, typename Sizes::Transfer, typename Sizes::Ring;
    using Sizes::cluster, Sizes::D, Sizes::input_gates, Sizes::units, Sizes::unit_warps, Sizes::sent_units, Sizes::rows,
        Sizes::apart, Sizes::place_units, Sizes::place_threads, Sizes::row_bytes, Sizes::arrays, Sizes::array_bytes,
        Sizes::staged_at, Sizes::staged_bytes, Sizes::stage_bytes, Sizes::ring_at, Sizes::ring_bytes;

    // ---- the thread's place ----
    const ForwardArguments& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = static_cast<int>(thread_index()) / 32;
    const int unit_warp = tiling.k_split == 1 ? warp : warp % unit_warps;
    const int part = tiling.k_split == 1 ? 0 : warp / unit_warps;
    const int rank = static_cast<int>(cluster_rank());
    const int head = static_cast<int>(block_x()) / cluster;
    const int first_row = static_cast<int>(block_y()) * rows;
    const int first_unit = (rank * unit_warps + unit_warp) * units;
    const int place = apart ? 0 : unit_warp;
    const int place_unit = apart ? rank * place_units : first_unit;  // the first of the place
    const Elements own{
        .batch = in.batch, .warp = rank * unit_warps + unit_warp, .head = head, .first_row = first_row, .g = g, .j = j,
        .order = sequences.lengths ? in.order : nullptr};
    const SharedAddress shared = shared_memory();
    TileSequences<sequences, rows> tile{in.seq};

    TILESMITH_DEVICE ClusterForwardTransfers(const ForwardArguments& in) : in(in) {}

    // ---- Wx in, results out ----

    Ring ring;
    LaneStores<Type, shape, units, rows, arrays, Stores::matrices> stores;
    ArrayWriter<shape, rows, place_threads, arrays, place_units, Transfer> writer;

    /// Of a unit within the place.
    TILESMITH_DEVICE SharedAddress result_at(int array, int row, int unit) const {
        return shared + staged_at + place * staged_bytes + array * array_bytes + row * row_bytes + 2 * unit;
    }

    TILESMITH_DEVICE void prepare_stores() {
        stores.prepare(own, lane, [&](int array, int row, int unit) { return result_at(array, row, unit - place_unit); });
    }

    TILESMITH_DEVICE void prepare_transfers() {
        ring.prepare(shared + ring_at + place * ring_bytes, [&](int gate, int row, int unit) {
            const int sequence = sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));  // past the batch: any will do
            const long long step = static_cast<long long>(sequence) * in.seq * input_gates + gate;
            const int real_unit = sent_units == D ? place_unit + unit : minimum(place_unit + unit, D - Ring::width);
            return in.wx + (step * shape.heads + head) * D + real_unit;
        });
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        writer.prepare(
            in.batch - first_row, D - place_unit,
            [&](int array, int row, int unit) {
                long long sequence = first_row + row;
                if constexpr (sequences.lengths) sequence = sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
                return result_array<Cell, save>(in, array, array_elements) +
                       (sequence * in.seq * shape.heads + head) * D + place_unit + unit;
            },
            [&](int array, int row, int unit) { return result_at(array, row, unit); });
    }

    /// Begin copying the next step's inputs, if there is one, as a group of copies.
    TILESMITH_DEVICE void begin_copy(bool there_is, int stage_offset) {
        if (there_is) ring.begin_copy(stage_offset, [](int) { return input_gates * shape.heads * D; });
        cp_async_commit();
    }

    TILESMITH_DEVICE void write_results() {
        writer.write(0, [](int) { return shape.heads * D; });
    }

    /// Behind the ends of all sequences of the tile.
    TILESMITH_DEVICE void write_rest() {
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - tile.steps, [](int) { return shape.heads * D; });
    }

    TILESMITH_DEVICE static constexpr int next_stage(int stage_offset) {
        return stage_offset == (tiling.num_stages - 1) * stage_bytes ? 0 : stage_offset + stage_bytes;
    }
};

}  // namespace tilesmith
