// What goes in and out of a block of a backward kernel in a step: saved values and gradients from outside come through a ring,
// some steps ahead, and the gates' gradients leave through buffers in shared memory.
#pragma once

#include "array_writer.cuh"
#include "backward_sizes.cuh"
#include "lane_stores.cuh"

namespace tilesmith {

template <class Cell, class Type, FixedShape shape, BackwardBlock block, int state_gradients, Gates source, Stores how,
          Sequences sequences>
struct BackwardTransfers : BackwardSizes<Cell, Type, shape, block, state_gradients, source, sequences> {
    using Sizes = BackwardSizes<Cell, Type, shape, block, state_gradients, source, sequences>;
    using typename Sizes::Who, typename Sizes::Elements, typename Sizes::Layout, typename Sizes::Ring, typename Sizes::Flags;
    using Sizes::blocks, Sizes::rows, Sizes::row_groups, Sizes::D, Sizes::recurrent_gates, Sizes::input_gates, Sizes::shared_out,
        Sizes::alone, Sizes::written_too, Sizes::writes, Sizes::units, Sizes::element, Sizes::unit_warps, Sizes::padded_units, Sizes::real_units,
        Sizes::stored, Sizes::multiplied, Sizes::staged, Sizes::recompute, Sizes::gate_arrays, Sizes::multiplies_hidden,
        Sizes::state_arrays, Sizes::read_gates, Sizes::read_states, Sizes::row_units, Sizes::row_bytes, Sizes::exchange_bytes,
        Sizes::buffer_bytes, Sizes::sharers, Sizes::ring_at, Sizes::held, Sizes::flags_at, Sizes::step_bytes;

    // ---- the thread's place ----

    /// Which of the blocks that share the head this is: a constant where it has all of it, and so is its first unit.
    TILESMITH_DEVICE static int rank() {
        if constexpr (!shared_out)
            return 0;
        else if constexpr (alone)
            return static_cast<int>(block_x()) % blocks;
        else
            return static_cast<int>(cluster_rank());
    }
    TILESMITH_DEVICE static int warp_of_block() { return static_cast<int>(thread_index()) / 32; }
    TILESMITH_DEVICE static int first_unit() { return first_unit(warp_of_block()); }
    TILESMITH_DEVICE static int first_unit(int block_warp) {
        return alone ? (rank() * unit_warps + block_warp / row_groups) * units : rank() * padded_units;
    }
    /// The sequence, within the block, with which this warp's begin.
    TILESMITH_DEVICE static int first_of_block() { return first_of_block(warp_of_block()); }
    TILESMITH_DEVICE static int first_of_block(int block_warp) { return alone ? block_warp % row_groups * rows : 0; }

    const BackwardArgumentsOf<Element<Type>>& in;
    const int lane = static_cast<int>(thread_index()) % 32;
    const int g = lane / 4;
    const int j = lane % 4;
    const int warp = alone ? 0 : warp_of_block();  // among those that store together
    const int head = static_cast<int>(block_x()) / blocks;
    const int first_row = static_cast<int>(block_y()) * rows * row_groups + first_of_block();
    const Elements own{
        .batch = in.batch, .warp = first_unit() / units + warp, .head = head, .first_row = first_row, .g = g, .j = j,
        .order = sequences.lengths ? in.order : nullptr};
    const SharedAddress shared = shared_memory() + (alone ? warp_of_block() * step_bytes : 0);

    TileSequences<sequences, rows> tile{in.seq};
    const Flags flags{shared + flags_at};
    ResetRows<sequences, -1> ahead;  // of the steps that are copied

    Ring ring;
    LaneStores<Type, shape, units, rows, count_bits(stored), how> stores;
    ArrayWriter<shape, rows, sharers, maximum(1, writes), real_units, Who, Element<Type>> writer;

    /// `own` of a thread of the block.
    TILESMITH_DEVICE Elements place_of(int thread) const {
        const int block_warp = thread / 32, lane = thread % 32;
        return {.batch = in.batch, .warp = first_unit(block_warp) / units + (alone ? 0 : block_warp), .head = head,
                .first_row = static_cast<int>(block_y()) * rows * row_groups + first_of_block(block_warp), .g = lane / 4,
                .j = lane % 4, .order = own.order};
    }

    TILESMITH_DEVICE BackwardTransfers(const BackwardArgumentsOf<Element<Type>>& in) : in(in) {}

    // ---- before the first step ----

    /// Zero what is read but never written: the padding of K, and of the ring that of a padded head and, where there
    /// are fewer steps than stages, the rest. And bring the first resets. Who shares them meets after that.
    TILESMITH_DEVICE void clear_padding() const {
        const int thread = Who::thread();
        if constexpr (sequences.resets) {
            const int last = (tile.steps - 1) / Flags::part;
            flags.begin_copy(in, first_row, last);
            flags.begin_copy(in, first_row, last - 1);
            cp_async_commit();
            cp_async_wait<0>();
        }
        if constexpr (multiplied != 0 && recurrent_gates * padded_units % k_tile_depth<Type> != 0)  // of 16 bits: half a k-tile
            for (int i = thread; i < 2 * 2 * rows; i += sharers) {
                const int k_chunk = recurrent_gates * padded_units / chunk_elements<Type> + i % 2;
                const int buffer = i / 2 % 2;
                store_shared_128(shared + buffer * buffer_bytes + Layout::offset(k_chunk, i / 4), uint4{0, 0, 0, 0});
            }
        if (row_units != real_units || sequences.lengths || in.seq < block.num_stages)
            for (int i = thread; i < block.num_stages * Ring::stage_bytes / chunk_bytes; i += sharers)
                store_shared_128(shared + ring_at + i * chunk_bytes, uint4{0, 0, 0, 0});
    }

    // ---- saved values and gradients in, the gates' gradients out ----

    /// A unit of the head, from one of the block: padding takes another's.
    TILESMITH_DEVICE int real_unit(int unit) const {
        return !shared_out || !Elements::padded ? first_unit() + unit : minimum(first_unit() + unit, D - Ring::width);
    }

    TILESMITH_DEVICE static bool is_state(int array) { return array >= read_gates && array < read_gates + read_states; }

    TILESMITH_DEVICE void prepare_transfers() {
        const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;
        ring.prepare(shared + ring_at, [&](int array, int row, int unit) {
            const long long sequence = sequence_of(row);
            const long long step = sequence * in.seq + tile.steps - 1;
            const long long at = (step * shape.heads + head) * D + real_unit(unit);
            if (array < read_gates) {
                const long long input = rank_among(Cell::input, nth_bit(gate_arrays, array));
                if constexpr (recompute) return in.wx + ((step * input_gates + input) * shape.heads + head) * D + real_unit(unit);
                return in.gates + array * array_elements + at;
            }
            if (is_state(array)) {  // the states before the step
                const int s = nth_bit(state_arrays, array - read_gates);
                const Element<Type>* base = in.states + s * array_elements;
                if (s > 0 && in.others != nullptr) base = in.others + (s - 1) * array_elements;
                return base + at - shape.heads * D;
            }
            return in.d_states + (array - read_gates - read_states) * array_elements + at;
        });
        const auto target = [&](int i, int row, int unit) {
            const long long sequence = sequences.lengths ? sequence_of(row) : first_row + row;
            const long long step = sequence * in.seq + in.seq - 1;
            const bool input = i < input_gates || written_too == 0;
            const long long gate = input ? step * input_gates + i : step * count_bits(written_too) + i - input_gates;
            return (input ? in.d_wx : in.d_inputless) + (gate * shape.heads + head) * D + first_unit() + unit;
        };
        stores.prepare(own, lane, [&](int i, int row, int unit) { return gradient_at(nth_bit(stored, i), row, unit - first_unit()); });
        writer.prepare(writes == 0 ? 0 : in.batch - first_row, D - first_unit(), target, [&](int i, int row, int unit) {
            return gradient_at(writes == 0 ? 0 : i < input_gates ? nth_bit(Cell::input, i) : nth_bit(written_too, i - input_gates),
                               row, unit);
        });
        if constexpr (sequences.lengths) writer.write_zeros(in.seq - tile.steps, [](int i) { return write_step(i); });
    }

    /// The sequence of a row of the tile; past the batch any will do.
    TILESMITH_DEVICE int sequence_of(int row) const {
        return sequence_at<sequences>(in, minimum(first_row + row, in.batch - 1));
    }

    TILESMITH_DEVICE static int copy_step(int array) {
        return -(recompute && array < read_gates ? input_gates * shape.heads * D : shape.heads * D);
    }

    /// Begin copying what step t reads, and move on to step t - 1. Before step 0, and of the rows that `begin` anew if a product
    /// reads them from the ring, lie the initial states.
    TILESMITH_DEVICE void begin_copy(int stage_offset, int t, unsigned begins) {
        if (t > 0 && (!multiplies_hidden || begins == 0)) {
            ring.begin_copy(stage_offset, [](int array) { return copy_step(array); });
            return;
        }
#pragma unroll
        for (int i = 0; i < Ring::copies; ++i) {
            if (!Ring::copies_too(i)) continue;
            int array, row, unit;
            Ring::locate(i, array, row, unit);
            const SharedAddress to = ring.to[i] + stage_offset;
            if constexpr (sequences.resets && multiplies_hidden) {  // these come often: no branch
                const bool initial = is_state(array) && (t == 0 || (begins >> row & 1) != 0);
                const bool given = initial && in.initial != nullptr;
                Ring::copy_or_zeros(to, given ? initial_state(array, row, unit) : ring.from[i], given || !initial);
                ring.from[i] += copy_step(array);
            } else if (!is_state(array)) {
                Ring::copy(to, ring.from[i]);
            } else if (in.initial != nullptr) {
                Ring::copy(to, initial_state(array, row, unit));
            } else {
                Ring::clear(to);
            }
        }
    }

    TILESMITH_DEVICE const Element<Type>* initial_state(int array, int row, int unit) const {
        const int s = nth_bit(state_arrays, array - read_gates);
        const int sequence = sequence_of(row);
        return in.initial + ((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + real_unit(unit);
    }

    TILESMITH_DEVICE static int write_step(int i) {
        return -(i < input_gates || written_too == 0 ? input_gates : count_bits(written_too)) * shape.heads * D;
    }

    TILESMITH_DEVICE void write_out(int buffer) {
        writer.write(buffer * buffer_bytes, [](int i) { return write_step(i); });
    }

    /// Where a gate's gradient goes in the first buffer, of a unit of the block: to the exchange, or where it is written out from only.
    TILESMITH_DEVICE SharedAddress gradient_at(int gate, int row, int unit) const {
        const int k = rank_among(Cell::recurrent, gate) * padded_units + unit;
        const int apart = exchange_bytes + (rank_among(staged, gate) * rows + row) * row_bytes + element * unit;
        return shared + (has(multiplied, gate) ? Layout::place(k, row) : apart);
    }

    /// In the n-th step, copy what a later one reads into the stage that nobody reads any more.
    TILESMITH_DEVICE void refill(int n, int stage_offset) {
        const int t = tile.steps - 1 - n - (block.num_stages - held);
        if (t >= 0) begin_copy(stage_offset, t, multiplies_hidden ? ahead.at(n) : 0);
        cp_async_commit();
    }

};

}  // namespace tilesmith
