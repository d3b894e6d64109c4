// The grid schedule, forward: blocks all over the GPU share the recurrent matrix R of one head, each with all gates of its
// part of the units, and run a tile of the batch through all time steps. All blocks of the launch run at the same time.
//
// A warp multiplies for `units_per_warp` units with all their gates and a part of K. It polls the part of h that it
// multiplies, straight from global memory into the registers that the tensor cores take it from (grid_mail.cuh), so that each
// word of h is loaded once by a block for each group of units. Then the warps of the block meet, and some of them add the
// parts' sums: each owns 8 units of some sequences, their states, their inputs, which come through a ring of its own, and
// their results. The meeting also tells them that all of h has come, where a warp has seen but its part.
//
// Those that step are the first of the warps that multiply, or warps of their own: then those that multiply go on when they
// have stored their sums, to wait until their block has sent, and those that step only wait for sums. When a warp polls is
// what decides how long a step takes, since polls that find nothing hold up the words they ask for: `pause` and
// `owner_pause` say when.
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "block_sums.cuh"
#include "grid_step.cuh"
#include "stationary_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/grid/forward.py states their constraints.
struct GridTiling {
    int blocks;           // that share a head
    int units_per_warp;   // 8: a 16-row tile holds two gates of 8 units; 16: one gate of 16 units
    int batch_tile;       // sequences that these blocks run: 4, or a multiple of 8
    int epilogue_rows;    // sequences of a warp that runs the step of 8 units: all of the tile, or a part
    int k_split;          // warps that share a group of units, each with a part of the previous units
    int k_tiles_in_registers;  // of a warp's k-tiles, of 64 bytes of previous units each, how many keep their part of R in registers
    int accumulators;           // independent accumulators per tile, so that matrix instructions overlap
    int num_stages;         // stages of the ring that holds Wx
    int step_warps;   // 0: the first of those that multiply run the step; n: warps of their own, which add the sums of the
                      // parts of K in n groups, as they come
    int pause;        // clocks, after its block has sent, until a warp that does not step polls; -1: it polls as soon as it can
    int owner_pause;  // clocks that a warp which steps and multiplies waits, when it has done its step, before it polls
    int keeps_rests = 0;  // in float32, 1: of the words of R in registers what TF32 leaves of them is there too
};

/// What follows from the tile variables and D.
TILESMITH_DEVICE constexpr int unit_warps_of(FixedShape shape, GridTiling tiling) {
    return ceil_div(ceil_div(shape.head_dim, tiling.units_per_warp), tiling.blocks);  // of a block
}
template <class Type>
TILESMITH_DEVICE constexpr int k_tiles_of(FixedShape shape, GridTiling tiling) {
    const int sent_units = tiling.blocks * unit_warps_of(shape, tiling) * tiling.units_per_warp;
    return ceil_div(ceil_div(sent_units, k_tile_depth<Type>), tiling.k_split);  // per warp
}
template <class Type>
TILESMITH_DEVICE constexpr GridShare share_of(FixedShape shape, GridTiling tiling) {
    const int unit_warps = unit_warps_of(shape, tiling);
    return {.blocks = tiling.blocks,
            .block_units = unit_warps * tiling.units_per_warp,
            .rows = tiling.batch_tile,
            .epilogue_rows = tiling.epilogue_rows,
            .num_stages = tiling.num_stages,
            .padded_k = k_tile_depth<Type> * k_tiles_of<Type>(shape, tiling) * tiling.k_split,
            .first_warp = tiling.step_warps != 0 ? unit_warps * tiling.k_split : 0};
}

template <class Cell, class Type, FixedShape shape, GridTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct GridForward : GridStep<Cell, Type, shape, share_of<Type>(shape, tiling), save, how, sequences> {
    using Step = GridStep<Cell, Type, shape, share_of<Type>(shape, tiling), save, how, sequences>;
    using Step::D, Step::gates, Step::sent_units, Step::padded_k, Step::rows, Step::row_groups, Step::epilogue_warps, Step::apart;
    using Step::column_tiles, Step::columns;
    using Step::in, Step::lane, Step::g, Step::j, Step::warp, Step::rank, Step::head, Step::shared, Step::owner;
    using Step::row_group, Step::unit_group, Step::first_row, Step::own, Step::mail, Step::tile;
    using typename Step::Elements, typename Step::Inputs, typename Step::Mail, typename Step::Stages;

    // ---- sizes ----
    static constexpr int units = tiling.units_per_warp;
    static constexpr int unit_warps = unit_warps_of(shape, tiling);
    static constexpr int product_warps = unit_warps * tiling.k_split;
    static constexpr int k_tiles = k_tiles_of<Type>(shape, tiling);

    using Rows = GateRows<Cell, units>;
    static constexpr int tiles = Rows::tiles;  // of 16 rows, per warp

    static constexpr int unit_groups = units / 8;  // of a warp that multiplies; one that runs the step has one
    static constexpr int sum_groups = maximum(tiling.step_warps, 1);
    static constexpr int warps = product_warps + (apart ? epilogue_warps : 0);  // those that multiply come first
    static constexpr int threads = 32 * warps;
    /// Whether a warp that does not step fences for its block, while the others step; else each thread for itself.
    static constexpr bool fenced_apart = epilogue_warps < warps;
    static constexpr bool paced = tiling.pause >= 0;

    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(epilogue_warps <= warps, "each warp runs the step of one group at most");
    static_assert(!paced || fenced_apart, "there are warps that wait for those that send");
    static_assert(!apart || paced, "a warp overwrites no sums before its block has sent what they make");
    static_assert(tiling.k_split % sum_groups == 0, "groups have as many parts");
    static_assert(!apart || tiling.owner_pause == 0, "who does not poll does not pause");

    // ---- shared memory ----
    // the part of R that is not in registers: [warp][group][tile][half][lane]
    static constexpr int weights_at = Step::step_bytes;
    using Matrix = StationaryMatrix<Type, tiles, k_tiles, tiling.k_tiles_in_registers, rows, tiling.accumulators,
                                    tiling.keeps_rests != 0, Step::element == 4>;
    static constexpr int sums_at = weights_at + product_warps * Matrix::shared_bytes;
    using BlockSums = tilesmith::BlockSums<Matrix, tiles, unit_warps, tiling.k_split>;
    static constexpr int shared_bytes = sums_at + 2 * BlockSums::bytes;

    // ---- the thread's place in the product ----
    const int unit_warp = warp % unit_warps;
    const int part = warp / unit_warps;

    // ---- registers that live through the sequence ----
    Matrix weights;

    /// Load this lane's part of R.
    TILESMITH_DEVICE void load_weights() {
        const int first = (rank * unit_warps + unit_warp) * units;
        constexpr int at_once = vector_width(D, Step::element) == chunk_elements<Type> ? 4 : 1;
        const auto row = [&](int tile, int k_tile, int upper) {
            const int k = (part * k_tiles + k_tile) * k_tile_depth<Type> + j * chunk_elements<Type>;
            if (upper == 0 && k_tile % at_once == 0) sync_warp();  // no more loads under way than there are registers for
            return Rows::template load<shape>(in.r, head, first, tile * 16 + upper * 8 + g, k);
        };
        const SharedAddress at = shared + weights_at + warp * Matrix::shared_bytes;
        if constexpr (Matrix::loads_in_turn)
            weights.load_in_turn(at, lane, row);
        else
            weights.load(at, lane, row);
    }

    TILESMITH_DEVICE void fill_padding() const {
        if (padded_k != sent_units && rank == 0) mail.fill(static_cast<int>(thread_index()), threads);
    }

    // ---- one step ----

    // Named barriers: at one those that have sent signal, and the others wait before they poll; at the others, where warps of
    // their own step, those that multiply signal that the sums of a group of parts are there.
    static constexpr int sent_barrier = 1, sums_barrier = 2;
    static constexpr int parts_of_group = tiling.k_split / sum_groups;
    static constexpr int sums_threads = 32 * (unit_warps * parts_of_group + epilogue_warps);

    TILESMITH_DEVICE static void signal_sent() {
        if constexpr (paced) arrive_named(sent_barrier, threads);
    }
    /// Until a poll is likely to find what has been sent, of a step but the first.
    TILESMITH_DEVICE void await_sent() const {
        if (!apart && owner) {
            if constexpr (tiling.owner_pause > 0) pause(tiling.owner_pause);
        } else if constexpr (paced) {
            sync_named(sent_barrier, threads);
            if constexpr (tiling.pause > 0) pause(tiling.pause);
        }
    }

    /// sums = R h of this warp's units and part of K. Waits until all of that h has come.
    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, const unsigned char* hidden) const {
        const typename Matrix::template Places<typename Mail::Layout> places(0, part * k_tiles * 4, lane);
        uint4 words[Matrix::reads][Matrix::column_tiles];
        Mail::template wait<Matrix>(words, hidden, places);
        weights.template product<true>(
            sums,
            [&](int k_tile, uint4(&b)[Matrix::column_tiles]) {
#pragma unroll
                for (int column_tile = 0; column_tile < Matrix::column_tiles; ++column_tile)
                    b[column_tile] = words[k_tile / Matrix::k_tiles_per_read][column_tile];
            },
            [](int, int, int) { return 0.0f; });
    }

    /// What `count` parts of K have made, from the first_part-th on, of a gate that has a product. sums: where all lie.
    template <int count>
    TILESMITH_DEVICE float sum_of_parts(SharedAddress sums, int first_part, int rank_of_gate, int column_tile, int column) const {
        const int tile = units == 8 ? rank_of_gate / 2 : rank_of_gate;
        const int upper = units == 8 ? rank_of_gate % 2 : unit_group % unit_groups;
        const int plane = row_group * (BlockSums::planes / row_groups) + column_tile * columns + column;
        return BlockSums::template sum<count>(sums, unit_group / unit_groups, tile, upper, plane, lane, first_part);
    }

    TILESMITH_DEVICE SharedAddress sums_of(int t) const { return shared + sums_at + (t & 1) * BlockSums::bytes; }

    TILESMITH_DEVICE void store_product(int t) const {
        typename Matrix::Sums sums;
        if (t > 0) await_sent();
        multiply(sums, mail.at + Mail::slot_of(t));
        BlockSums::store(sums, sums_of(t), unit_warp, part, lane);
    }

    /// For what the block has poisoned, by a warp that waits for those that step.
    TILESMITH_DEVICE void fence_for_block() const {
        if (fenced_apart && warp == product_warps - 1) fence_global();
    }

    template <class Product>
    TILESMITH_DEVICE void step_and_fence(int t, const Inputs& wx, unsigned restarts, unsigned running, Product product, Stages& stages) {
        this->step(t, wx, restarts, running, product, stages, [] { signal_sent(); });
        if (!fenced_apart) fence_global();
    }

    /// The steps of a tile, by warps of which the first also step.
    TILESMITH_DEVICE void run_together() {
        Stages stages;
        for (int t = 0; t < tile.steps; ++t) {
            Inputs wx{};
            unsigned restarts = 0, running = ~0u;
            if (owner) this->take_inputs(wx, restarts, running, t, stages.read);
            store_product(t);
            sync_block();  // all of h(t) has come, and its products are there
            fence_for_block();
            if (!owner) continue;
            const auto product = [&](int rank_of_gate, int column_tile, int column) {
                return sum_of_parts<tiling.k_split>(sums_of(t), 0, rank_of_gate, column_tile, column);
            };
            step_and_fence(t, wx, restarts, running, product, stages);
        }
    }

    /// The same of a warp that multiplies, where others step. It fences a step earlier than where all meet: grid_mail.cuh.
    TILESMITH_DEVICE void run_products() {
        load_weights();
        for (int t = 0; t < tile.steps; ++t) {
            store_product(t);
            arrive_named(sums_barrier + part / parts_of_group, sums_threads);
            fence_for_block();
        }
    }

    /// And of one that steps.
    TILESMITH_DEVICE void run_steps() {
        Stages stages;
        for (int t = 0; t < tile.steps; ++t) {
            Inputs wx{};
            unsigned restarts = 0, running = ~0u;
            this->take_inputs(wx, restarts, running, t, stages.read);
            float products[column_tiles][columns][Rows::product_gates];
#pragma unroll
            for (int group = 0; group < sum_groups; ++group) {
                sync_named(sums_barrier + group, sums_threads);  // in the end all of h(t) has come, and its products are there
                Elements::for_each([&](int, int column_tile, int column) {
#pragma unroll
                    for (int gate = 0; gate < Rows::product_gates; ++gate) {
                        const float sum = sum_of_parts<parts_of_group>(sums_of(t), group * parts_of_group, gate, column_tile, column);
                        float& product = products[column_tile][column][gate];
                        product = group == 0 ? sum : product + sum;
                    }
                });
            }
            const auto product = [&](int gate, int column_tile, int column) { return products[column_tile][column][gate]; };
            step_and_fence(t, wx, restarts, running, product, stages);
        }
    }

    TILESMITH_DEVICE void run() {
        tile.template prepare<rows>(in, first_row, lane, static_cast<int>(block_y()) * rows);
        if constexpr (apart) {
            this->prepare_mail();
            fill_padding();
            if (!owner) return run_products();
        } else {
            load_weights();
        }
        load_bias<Type, Cell>(this->bias, in.b, owner ? ~0u : 0u, own);
        this->load_states();
        this->prepare_transfers();
        if constexpr (!apart) this->prepare_mail();
        if (owner) this->begin_steps();
        if constexpr (apart) {
            run_steps();
        } else {
            fill_padding();
            run_together();
            if (!owner) return;
        }
        this->finish();
    }
};

}  // namespace tilesmith
