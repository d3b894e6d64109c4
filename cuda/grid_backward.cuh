// The grid schedule, backward: blocks all over the GPU share the recurrent matrix R of one head, and run a tile of the batch
// from the last step to the first. All blocks of the launch run at the same time.
//
// Blocks that follow each other are a cluster, on GPUs that have them, of one block on others. A cluster has the rows of R
// transposed that make the gradient of the previous h of its units, and each of its blocks a part of K, which is to say of the
// gates of all units. A warp polls the gates' gradients of its own part of that, straight from global memory into the registers
// that the tensor cores take them from (grid_mail.cuh). The parts' sums are added twice: those of a block's warps through its
// shared memory (block_sums.cuh), at the only barrier of a step, and those of the cluster's blocks by the warps that own the
// units, which get them as messages (gradient_mail.cuh). These run the pointwise step of 8 units for some sequences
// (backward_step.cuh), with a ring and results of their own, and send the gates' gradients to all.
//
// So a step takes two exchanges, one in the cluster and one through L2; but L2 hands out each gradient once a cluster, not once
// a block, and that is what takes long where there are many.
//
// A "cluster" need not be one of the hardware's, which fit a GPU less often than blocks do: then sums, too, go through L2.
#pragma once

#include "backward_step.cuh"
#include "block_sums.cuh"
#include "gradient_mail.cuh"
#include "grid_mail.cuh"

namespace tilesmith {

/// The tile variables; kernelgen/schedules/grid/backward.py states their constraints.
struct GridBackwardTiling {
    int clusters;         // that share a head
    int cluster;          // blocks of a cluster: that share the gates' gradients
    int batch_tile;       // sequences that these blocks run: 4, or a multiple of 8
    int epilogue_rows;    // sequences of a warp that runs the step of 8 units: all of the tile, or a part
    int tiles_per_warp;   // of 16 previous units, whose part of the product a warp has
    int k_split;          // warps of a block that have the same tiles, each with a part of K
    int k_tiles_in_registers;  // of a warp's k-tiles, of 64 bytes of k each, how many keep their part of R in registers
    int accumulators;           // independent accumulators per tile
    int num_stages;         // stages of the ring that holds saved values and gradients
    int pause;        // clocks, after its block has sent, until a warp that owns nothing polls; -1: as soon as it can
    int owner_pause;  // clocks that a warp which owns units waits, when it has done its step, before it polls
    int through_l2 = 0;   // 1: sums go to the blocks of a cluster through L2, and it is none of the hardware's
    int sums_buffers = 2;  // where warps leave their sums for those that own units; one costs a meeting more
    int keeps_rests = 0;  // in float32, 1: of the words of R in registers what TF32 leaves of them is there too
};

/// Warps of a block that have different tiles of the product.
template <FixedShape shape, GridBackwardTiling tiling>
inline constexpr int grid_backward_tile_warps =
    ceil_div(ceil_div(ceil_div(shape.head_dim, 16), tiling.clusters), tiling.tiles_per_warp);

/// What a block of the schedule is to BackwardStep.
template <FixedShape shape, GridBackwardTiling tiling>
inline constexpr BackwardBlock grid_backward_block{
    .sharing = Sharing::grid,
    .blocks = tiling.clusters * tiling.cluster,
    .threads = 32 * grid_backward_tile_warps<shape, tiling> * tiling.k_split,
    .rows = tiling.epilogue_rows,
    .num_stages = tiling.num_stages,
    .unit_groups = 2 * grid_backward_tile_warps<shape, tiling> * tiling.tiles_per_warp / tiling.cluster,
    .row_groups = tiling.batch_tile / tiling.epilogue_rows};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, GridBackwardTiling tiling, int state_gradients, Gates source, Stores how,
          Sequences sequences = Sequences{}>
struct GridBackward : BackwardStep<Cell, Type, shape, grid_backward_block<shape, tiling>, state_gradients, source, how, sequences> {
    using Step = BackwardStep<Cell, Type, shape, grid_backward_block<shape, tiling>, state_gradients, source, how, sequences>;
    using typename Step::Elements;

    // ---- sizes ----
    static constexpr int cluster = tiling.cluster;
    static constexpr int threads = Step::threads;
    static constexpr int warps = threads / 32;
    static constexpr int rows = tiling.batch_tile;
    static constexpr int row_groups = Step::row_groups;
    static constexpr int column_tiles = Elements::column_tiles;  // of a warp that owns units
    static constexpr int columns = Elements::columns;
    static constexpr int unit_groups = Step::unit_warps;  // of 8, of a block
    static constexpr int owners = unit_groups * row_groups;
    static constexpr int tile_warps = grid_backward_tile_warps<shape, tiling>;
    static constexpr int tiles = tiling.tiles_per_warp;
    static constexpr int cluster_units = 16 * tiles * tile_warps;
    static constexpr int sent_units = tiling.clusters * cluster_units;
    static constexpr int products = Step::recurrent_gates;
    static constexpr int all_k_tiles = ceil_div(products * sent_units, k_tile_depth<Type>);  // k = gate * sent_units + unit
    static constexpr int k_tiles = ceil_div(all_k_tiles, cluster * tiling.k_split);  // of a warp
    static constexpr int padded_k = k_tile_depth<Type> * k_tiles * cluster * tiling.k_split;
    /// Whether a warp that owns nothing fences for its block, while the others step; else each thread for itself.
    static constexpr bool fenced_apart = owners < warps;

    static constexpr bool paced = tiling.pause >= 0;
    /// Whether the blocks that share the gates' gradients are a cluster of the hardware's.
    static constexpr bool in_cluster = cluster > 1 && tiling.through_l2 == 0;
    /// Whether what the next step computes before it has the gradients is computed while sums travel, which takes long enough
    /// through L2: then it is in no register while the block multiplies.
    static constexpr bool prepares_late = tiling.through_l2 != 0 && !Cell::recurrent_cut;

    static_assert(!paced || fenced_apart, "there are warps that wait for those that send");
    static_assert(8 * unit_groups * cluster == cluster_units, "the blocks of a cluster own as many units");
    static_assert(rows % Step::rows == 0 && owners <= warps, "each warp runs the step of one group at most");
    static_assert((tiling.clusters - 1) * cluster_units < shape.head_dim, "every cluster has units");
    static_assert(k_tiles * tiling.k_split * (cluster - 1) < all_k_tiles, "every block has a part of K");

    // ---- shared memory ----
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, rows, tiling.accumulators,
                                    tiling.keeps_rests != 0, element_bytes<Type> == 4 || tiling.through_l2 != 0>;
    static constexpr int weights_at = Step::step_end;
    using Moving = uint4[Matrix::reads][Matrix::column_tiles];
    /// Tiles whose sums are in registers at a time: those of all take what R needs, where it fills the block.
    static constexpr int group = tiles % 2 == 0 ? 2 : 1;
    static constexpr bool in_groups = tiling.through_l2 != 0 && !Matrix::in_parts && !Matrix::paired && tiling.accumulators == 1;
    using BlockSums = tilesmith::BlockSums<Matrix, tiles, tile_warps, tiling.k_split>;
    static constexpr int sums_at = weights_at + warps * Matrix::shared_bytes;
    static constexpr int sums_slots = tiling.through_l2 != 0 ? 4 : 2;
    using Way = typename Either<tiling.through_l2 != 0, ThroughL2, ThroughCluster>::Type;
    using SumsMail = GradientMail<Step::rows, cluster, owners, 8, sums_slots, Way>;
    static constexpr int sums_mail_at = sums_at + tiling.sums_buffers * BlockSums::bytes;
    static constexpr int shared_bytes = sums_mail_at + (in_cluster ? SumsMail::bytes : 0);
    static_assert(tiling.sums_buffers * BlockSums::bytes >= warps * transposed_scratch_bytes, "R is turned where the sums will be");

    // ---- messages ----
    using Mail = GridMail<Type, shape, rows, Step::rows, sent_units, padded_k, products>;
    // Of a head and tile: the gates' gradients, then the sums of each of its blocks, if they go through L2.
    static constexpr int mail_words = (Mail::bytes + (tiling.through_l2 != 0 ? tiling.clusters * cluster * SumsMail::bytes : 0)) / 4;

    // What a warp sends to the blocks of its cluster: of the groups that warps own there, every `warps`-th.
    static constexpr int groups_to_send = ceil_div(cluster * owners, warps);

    const int block_warp = Step::warp_of_block();
    const bool owner = block_warp < owners;
    const int tile_warp = block_warp % tile_warps;
    const int part = block_warp / tile_warps;
    const int rank_of_cluster = Step::rank() % cluster;
    const int first_of_cluster = Step::rank() / cluster * cluster_units;  // unit
    const SharedAddress block_shared = shared_memory();
    Matrix weights;
    Mail mail;
    ClusterAddress to[groups_to_send];

    /// A group of elements that a warp of the cluster owns, counted over all of them: a block begins with its neighbour's.
    TILESMITH_DEVICE static int group_to_send(int i) { return Step::warp_of_block() + i * warps; }
    TILESMITH_DEVICE int block_of(int group) const { return (rank_of_cluster + 1 + group / owners) % cluster; }

    TILESMITH_DEVICE void load_all() {
        load_transposed<shape, products>(
            weights, this->in.r, this->head, block_shared + weights_at + block_warp * Matrix::shared_bytes,
            block_shared + sums_at + block_warp * transposed_scratch_bytes, this->lane,
            [&](int tile) { return first_of_cluster + (tile_warp * tiles + tile) * 16; },
            [&](int k, int& gate, int& unit) {
                const int of_all = (rank_of_cluster * tiling.k_split + part) * k_tiles * k_tile_depth<Type> + k;
                gate = of_all / sent_units;
                unit = of_all % sent_units;
            });
        load_bias<Type, Cell>(this->bias, this->in.b, owner ? Step::recomputed_gates : 0u, this->own);
        this->inputless.clear();
        if (owner) this->load_last();
    }

    TILESMITH_DEVICE void prepare_mail() {
        const int tiles_of_batch = ceil_div(this->in.batch, rows);
        const long long tile = static_cast<long long>(this->head) * tiles_of_batch + block_y();
        mail.prepare(this->in.mail + tile * mail_words, this->own, Step::first_of_block());
        const SharedAddress sums_mail = block_shared + sums_mail_at;
        if constexpr (in_cluster) {
#pragma unroll
            for (int i = 0; i < groups_to_send; ++i) {
                const int group = minimum(group_to_send(i), cluster * owners - 1);
                to[i] = cluster_address(sums_mail + SumsMail::place(group % owners, rank_of_cluster, this->lane), block_of(group));
            }
            for (int slot = 0; slot < sums_slots; ++slot)
                SumsMail::poison_slot(sums_mail + slot * SumsMail::slot_bytes, static_cast<int>(thread_index()), threads);
        }
    }

    /// Where this warp receives sums, in the first slot.
    TILESMITH_DEVICE typename SumsMail::From received_at() const {
        if constexpr (in_cluster)
            return block_shared + sums_mail_at + SumsMail::place(block_warp, 0, this->lane);
        else
            return mail.at + offset_of_sums(rank_of_cluster, block_warp, 0);
    }
    /// Where an owner of a block of the cluster receives those of block `from`, after the beginning of the mail of the head and
    /// tile. Computed anew for every use: kept, they would take registers.
    TILESMITH_DEVICE int offset_of_sums(int block, int owner_warp, int from) const {
        const int first = (Step::rank() - rank_of_cluster + block) * SumsMail::bytes;
        return Mail::bytes + first + SumsMail::place(owner_warp, from, opaque(this->lane));
    }

    /// The sums of a block's warps, for a warp that owns units in a block of the cluster.
    TILESMITH_DEVICE void add_parts(typename SumsMail::Sums& sums, SharedAddress buffer, int block, int owner_warp) const {
        const int unit_group = block * unit_groups + owner_warp / row_groups;
        const int tile = unit_group / 2;
#pragma unroll
        for (int column_tile = 0; column_tile < column_tiles; ++column_tile)
#pragma unroll
            for (int column = 0; column < columns; ++column) {
                const int plane = owner_warp % row_groups * (BlockSums::planes / row_groups) + column_tile * columns + column;
                sums[column_tile][column] = BlockSums::sum(buffer, tile / tiles, tile % tiles, unit_group % 2, plane, this->lane);
            }
    }

    /// Wait until all of the gates' gradients that this warp multiplies have come.
    TILESMITH_DEVICE void receive(Moving& words, const unsigned char* gradients) const {
        const typename Matrix::template Places<typename Mail::Layout> places(
            0, (rank_of_cluster * tiling.k_split + part) * k_tiles * 4, this->lane);
        Mail::template wait<Matrix, in_groups>(words, gradients, places);
    }

    /// This warp's part of the product.
    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, const Moving& words) const {
        weights.template product<true>(
            sums,
            [&](int k_tile, uint4(&b)[Matrix::column_tiles]) {
#pragma unroll
                for (int column_tile = 0; column_tile < Matrix::column_tiles; ++column_tile)
                    b[column_tile] = words[k_tile / Matrix::k_tiles_per_read][column_tile];
            },
            [](int, int, int) { return 0.0f; });
    }

    /// Send the sums of this block's warps to those that own the units, or take them where a block is alone.
    TILESMITH_DEVICE void send_sums(SharedAddress buffer, int slot) {
        typename SumsMail::Sums sums;
        if constexpr (cluster > 1) {
#pragma unroll
            for (int i = 0; i < groups_to_send; ++i) {
                const int group = group_to_send(i);
                if (group >= cluster * owners) continue;
                add_parts(sums, buffer, block_of(group), group % owners);
                if constexpr (in_cluster)
                    SumsMail::send(to[i] + slot, sums);
                else
                    SumsMail::send(mail.at + offset_of_sums(block_of(group), group % owners, rank_of_cluster) + slot, sums);
            }
        } else if (owner) {
            add_parts(sums, buffer, 0, block_warp);
            take(sums);
        }
    }

    TILESMITH_DEVICE void take(const typename SumsMail::Sums& sums) {
        Elements::for_each([&](int unit_group, int column_tile, int column) {
            this->carried[unit_group][column_tile][column][0] += sums[column_tile][column];
        });
    }

    // A named barrier: warps that have sent signal, and those that own nothing wait before they poll.
    static constexpr int sent_barrier = 1;

    TILESMITH_DEVICE static void signal_sent() {
        if constexpr (paced) arrive_named(sent_barrier, threads);
    }
    /// Until a poll is likely to find what has been sent.
    TILESMITH_DEVICE void await_sent() const {
        if (owner) {
            if constexpr (tiling.owner_pause > 0) pause(tiling.owner_pause);
        } else if constexpr (paced) {
            sync_named(sent_barrier, threads);
            if constexpr (tiling.pause > 0) pause(tiling.pause);
        }
    }

    /// The n-th step's product, from the gates' gradients that all blocks send to the gradients of h that this one owns.
    TILESMITH_DEVICE void exchange(int n, int slot) {
        Moving words;
        await_sent();
        receive(words, mail.at + Mail::slot_of(n));
        const SharedAddress buffer = block_shared + sums_at + (tiling.sums_buffers > 1 ? n & 1 : 0) * BlockSums::bytes;
        if constexpr (in_groups) {
#pragma unroll
            for (int first = 0; first < tiles; first += group) {
                float sums[group][Matrix::column_tiles][4];
                weights.template product_of_tiles<group>(sums, first, words);
                BlockSums::template store_tiles<group>(sums, first, buffer, tile_warp, part, this->lane);
            }
        } else {
            typename Matrix::Sums sums;
            multiply(sums, words);
            BlockSums::store(sums, buffer, tile_warp, part, this->lane);
        }
        sync_block();
        send_sums(buffer, slot);
        if constexpr (tiling.sums_buffers == 1) sync_block();  // the buffer has been read; messages travel meanwhile
        if constexpr (prepares_late)
            if (owner) this->prepare(stage_offset);
        if (fenced_apart && block_warp == warps - 1) fence_global();  // for what the block has poisoned
        if constexpr (cluster > 1)
            if (owner) {
                typename SumsMail::Sums received;
                SumsMail::receive(received, received_at() + slot);
                take(received);
            }
    }

    /// The n-th step of the units that this warp owns. received: the slot of the sums that it has taken before, if any.
    template <bool whole>
    TILESMITH_DEVICE void step(int n, int buffer, Constant<whole> before_ends, int& stage_offset, int received) {
        typename Step::Gradients d_gates;
        this->differentiate(d_gates, n, before_ends);
        if constexpr (!Cell::recurrent_cut) {  // first what the others wait for
            mail.send(Mail::slot_of(n), [&](int array, int column_tile, int column) {
                return this->gradient(d_gates, nth_bit(Cell::recurrent, array), 0, column_tile, column);
            });
            signal_sent();
        }
        this->keep(buffer, d_gates);
        cp_async_wait<tiling.num_stages - 2>();
        sync_warp();  // all lanes' copies are there, and what is written out
        const int next = stage_offset == Step::last_stage ? 0 : stage_offset + Step::Ring::stage_bytes;
        if constexpr (!prepares_late) this->prepare(next);  // while messages travel; after the last step, of what lies there
        this->write_out(buffer);
        sync_warp();
        this->refill(n, stage_offset);
        stage_offset = next;
        if constexpr (!Cell::recurrent_cut) {
            if constexpr (in_cluster) {
                if (n > 0) SumsMail::poison_received(block_shared + sums_mail_at + received, block_warp, this->lane);
            } else if constexpr (cluster > 1) {
                if (n > 0) SumsMail::poison_received(received_at() + received);
            }
            if (n >= 2) mail.poison_sent(Mail::slot_of(n - 2));
            if (!fenced_apart) fence_global();
        }
    }

    int stage_offset, slot, received;

    /// The n-th step of a block.
    template <bool whole>
    TILESMITH_DEVICE void run_step(int n, int buffer, Constant<whole> before_ends) {
        if constexpr (tiling.through_l2 != 0) slot = SumsMail::slot_of(n), received = SumsMail::slot_of(n - 1);
        if (owner) step(n, buffer, before_ends, stage_offset, received);
        if constexpr (!Cell::recurrent_cut) exchange(n, slot);
        if constexpr (tiling.through_l2 == 0) {
            received = slot;
            slot = SumsMail::after(slot);
        }
    }

    TILESMITH_DEVICE void run() {
        this->find_ends();
        load_all();
        prepare_mail();
        if (owner) this->clear_padding();
        sync_warp();
        if (owner) this->begin_copies();
        if (padded_k != products * sent_units && Step::rank() == 0) mail.fill(static_cast<int>(thread_index()), threads);
        if constexpr (in_cluster)
            sync_cluster();  // every block has poison where it waits for messages
        else
            sync_block();  // R has been turned where the sums will be
        sync_warp();
        if (owner) {
            this->load_initial();
            this->prepare(0);
        }
        stage_offset = slot = received = 0;
        this->for_each_step(*this, owner);
        if constexpr (in_cluster) sync_cluster();  // the last messages have come: a block's memory may go
        if (!owner) return;
        if constexpr (prepares_late)
            this->store_initial(this->place_of(opaque(static_cast<int>(thread_index()))));
        else
            this->store_initial();
        if constexpr (Step::Inputless::members != 0)
            this->inputless.write_out(this->in, this->own, static_cast<int>(block_y()) * row_groups + block_warp % row_groups);
    }
};

}  // namespace tilesmith
