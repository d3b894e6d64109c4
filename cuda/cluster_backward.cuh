// The cluster schedule, backward: the blocks of a cluster share the recurrent matrix of one head, each with all gates of
// its part of the units, as forward, and run a tile of the batch from the last step to the first.
//
// The first warps of a block own its units, 16 each, and run the pointwise step (backward_step.cuh). All warps multiply:
// the gates' gradients of the block's units by its rows of R, transposed, make partial sums of the gradient of the previous
// h for all units of the head, tiles of 16 for each warp. Every block sends them to the owners of the units
// (gradient_mail.cuh). A step has one barrier of the block, where the gates' gradients are there; what comes from other
// blocks says by itself that it is there. Everything that is not on that way is done while the messages travel: what the
// next step computes before it has them, results, copies, poison.
//
// A warp that owns units owns 16: lane (g, j) has units g and g + 8, sequences 2j and 2j + 1 (or j, with 4 sequences).
#pragma once

#include "backward_step.cuh"
#include "gradient_mail.cuh"

namespace tilesmith {

/// The tile variables; kernelgen/schedules/cluster/backward.py states their constraints.
struct ClusterBackwardTiling {
    int cluster;          // blocks that share a head
    int batch_tile;       // sequences per cluster: 4, or a multiple of 8
    int tiles_per_warp;   // of 16 previous units, whose part of the product a warp has
    int k_tiles_in_registers;  // groups of 32 rows of R that stay in registers
    int accumulators;           // independent accumulators of a tile
    int num_stages;         // stages of the ring that holds saved values and gradients
};

/// What a block of the schedule is to BackwardStep.
template <FixedShape shape, ClusterBackwardTiling tiling>
inline constexpr BackwardBlock cluster_backward_block{
    .sharing = Sharing::cluster,
    .blocks = tiling.cluster,
    .threads = 32 * tiling.cluster * ceil_div(ceil_div(shape.head_dim, 16), tiling.cluster) / tiling.tiles_per_warp,
    .rows = tiling.batch_tile,
    .num_stages = tiling.num_stages};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, ClusterBackwardTiling tiling, int state_gradients, Gates source,
          Sequences sequences = Sequences{}>
struct ClusterBackward
    : BackwardStep<Cell, Type, shape, cluster_backward_block<shape, tiling>, state_gradients, source, Stores::matrices, sequences> {
    using Step =
        BackwardStep<Cell, Type, shape, cluster_backward_block<shape, tiling>, state_gradients, source, Stores::matrices, sequences>;
    using typename Step::Elements;
    static constexpr int cluster = tiling.cluster;
    static constexpr int threads = Step::threads;
    static constexpr int unit_warps = Step::unit_warps;
    static constexpr int tiles = tiling.tiles_per_warp;
    static_assert(cluster * unit_warps % tiles == 0, "every warp has as many tiles of the product");
    static_assert(tiles <= cluster, "every warp that owns units has a part of the product");

    // ---- shared memory ----
    using Matrix = StationaryMatrix<Type, tiles, Step::k_tiles, tiling.k_tiles_in_registers, Step::rows, tiling.accumulators>;
    static constexpr int weights_at = Step::step_end;
    static constexpr int slots = 3;
    using Mail = GradientMail<Step::rows, cluster, unit_warps, 16, slots>;
    static constexpr int mail_at = weights_at + threads / 32 * Matrix::shared_bytes;
    static constexpr int shared_bytes = mail_at + Mail::bytes;

    const bool owner = this->warp < unit_warps;
    const SharedAddress mail = this->shared + mail_at;
    Matrix weights;
    ClusterAddress to[tiles];  // where the owner of a tile waits for this block's sums
    TILESMITH_STAMPED(Stamps stamps;)

    /// Which 16 units a tile of this warp's is of, counted over all warps that own units. A block begins with its
    /// neighbour's and ends with its own.
    TILESMITH_DEVICE int units_of(int tile) const {
        const int count = this->warp * tiles + tile;
        return (this->rank() + 1 + count / unit_warps) % cluster * unit_warps + count % unit_warps;
    }

    TILESMITH_DEVICE void prepare_mail() {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
            const int unit_warp = units_of(tile);
            to[tile] = cluster_address(mail + Mail::place(unit_warp % unit_warps, this->rank(), this->lane), unit_warp / unit_warps);
        }
        for (int slot = 0; slot < slots; ++slot)
            Mail::poison_slot(mail + slot * Mail::slot_bytes, static_cast<int>(thread_index()), threads);
    }

    /// The product: the gates' gradients in a buffer become partial sums of that of h before the step, on their way.
    TILESMITH_DEVICE void multiply(int buffer, int slot) const {
        if constexpr (!Cell::recurrent_cut) {
            typename Matrix::Sums sums;
            weights.multiply(sums, this->shared + buffer * Step::buffer_bytes, 0, this->lane,
                                   [](int, int, int) { return 0.0f; });
#pragma unroll
            for (int tile = 0; tile < tiles; ++tile) Mail::send(to[tile] + slot, sums[tile]);
        }
    }

    /// Wait for all partial sums of a step, and add them to the gradient of h.
    TILESMITH_DEVICE void receive(int slot) {
        if constexpr (!Cell::recurrent_cut) {
            typename Mail::Sums sums;
            Mail::receive(sums, mail + slot + Mail::place(this->warp, 0, this->lane));
            Elements::for_each([&](int unit_group, int column_tile, int column) {
                this->carried[unit_group][column_tile][column][0] += sums[column_tile][2 * unit_group + column];
            });
        }
    }

    static constexpr int last_stage = Step::last_stage, stage_bytes = Step::Ring::stage_bytes;

    int stage_offset;
    int slot, received;  // of this step's messages, and of those before

    /// The n-th step of a block.
    template <bool whole>
    TILESMITH_DEVICE void run_step(int n, int buffer, Constant<whole> before_ends) {
        if (owner) {
            if (n > 0) receive(received);
            TILESMITH_STAMPED(stamps.mark(Phase::exchange);)
            this->finish(buffer, n, before_ends);
            TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
        }
        TILESMITH_STAMPED(if (!owner) stamps.skip(2);)
        cp_async_wait<tiling.num_stages - 2>();
        sync_block();  // the gates' gradients are there, and the inputs of the step after this one
        TILESMITH_STAMPED(stamps.mark(Phase::meeting);)
        multiply(buffer, slot);
        TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
        const int next = stage_offset == last_stage ? 0 : stage_offset + stage_bytes;
        if (owner) this->prepare(next);  // while messages travel; after the last step, of what lies there
        TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
        this->write_out(buffer);
        this->refill(n, stage_offset);
        Mail::poison_slot(mail + received, static_cast<int>(thread_index()), threads);
        stage_offset = next;
        received = slot;
        slot = Mail::after(slot);
        TILESMITH_STAMPED(stamps.step(Phase::transfers);)
    }

    TILESMITH_DEVICE void run() {
        this->find_ends();
        this->load_weights(weights, this->shared + weights_at + this->warp * Matrix::shared_bytes,
                           [&](int tile) { return units_of(tile) * Step::units; });
        load_bias<Type, Cell>(this->bias, this->in.b, owner ? Step::recomputed_gates : 0u, this->own);
        this->inputless.clear();
        if (owner) this->load_last();
        prepare_mail();
        sync_block();
        this->clear_padding();
        sync_block();
        this->begin_copies();
        sync_cluster();  // every block has poison where it waits for messages; the inputs of the first step are there
        if (owner) {
            this->load_initial();
            this->prepare(0);
        }
        stage_offset = slot = 0;
        received = (slots - 1) * Mail::slot_bytes;
        TILESMITH_STAMPED(stamps.start(this->in.stamps, this->warp == 0);)
        this->for_each_step(*this);
        TILESMITH_STAMPED(stamps.finish();)
        sync_cluster();  // the last messages have come: a block's memory may go
        if (owner) {
            receive(received);
            this->store_initial();
            if constexpr (Step::Inputless::members != 0) this->inputless.write_out(this->in, this->own, static_cast<int>(block_y()));
        }
    }
};

}  // namespace tilesmith
