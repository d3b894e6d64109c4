// The streamed grid schedule, forward: as the grid schedule (grid_forward.cuh), for heads whose R no GPU holds. Blocks all
// over the GPU share a head, each with all gates of its part of the units. Of its part of R as much stays in registers and
// shared memory as fits, and the rest comes in every step, through rings that are filled while h is still on its way
// (streamed_matrix.cuh).
//
// A warp multiplies for all units of its block and a part of K: so each word of h is loaded once by a block, and of R by
// the one lane that multiplies it. Of K the warps take 64 previous units each in turn, so that together they read whole
// stretches of R's rows. A warp polls its part of h (grid_mail.cuh), 64 units at a time, the next while it multiplies
// those before. Then the warps of the block leave their sums in shared memory, 16 units at a time, and those that own units
// add them and step (grid_step.cuh).
//
// Lanes: g = lane / 4, j = lane % 4. An accumulator tile gives lane (g, j) rows g and g + 8, columns 2j and 2j + 1.
#pragma once

#include "block_sums.cuh"
#include "grid_step.cuh"
#include "streamed_matrix.cuh"

namespace tilesmith {

/// The tile variables of the schedule; kernelgen/schedules/streamed_grid/forward.py states their constraints.
struct StreamedGridTiling {
    int blocks;         // that share a head
    int batch_tile;     // sequences that these blocks run: a multiple of 8
    int epilogue_rows;  // of a warp that runs the step of 8 units
    int k_split;        // warps of a block, each with a part of the previous units
    int in_registers;   // pieces of R, of 16 rows and 64 previous units, that a warp keeps in registers,
    int stationary;     // and in shared memory;
    int kept;           // of the others, those that L2 is to keep
    int ring;           // stages of a warp's ring of pieces
    int num_stages;     // of the ring that holds Wx
    int pause;          // clocks from a poll that finds something missing to the next
};

TILESMITH_DEVICE constexpr int pairs_of(FixedShape shape, StreamedGridTiling tiling) {
    const int sent_units = tiling.blocks * 8 * ceil_div(ceil_div(shape.head_dim, 8), tiling.blocks);
    return ceil_div(ceil_div(sent_units, piece_k), tiling.k_split);  // of a warp
}
TILESMITH_DEVICE constexpr GridShare share_of(FixedShape shape, StreamedGridTiling tiling) {
    return {.blocks = tiling.blocks,
            .block_units = 8 * ceil_div(ceil_div(shape.head_dim, 8), tiling.blocks),
            .rows = tiling.batch_tile,
            .epilogue_rows = tiling.epilogue_rows,
            .num_stages = tiling.num_stages,
            .padded_k = piece_k * pairs_of(shape, tiling) * tiling.k_split,
            .first_warp = 0};
}

template <class Cell, class Type, FixedShape shape, StreamedGridTiling tiling, Save save, Stores how, Sequences sequences = Sequences{}>
struct StreamedGridForward : GridStep<Cell, Type, shape, share_of(shape, tiling), save, how, sequences> {
    using Step = GridStep<Cell, Type, shape, share_of(shape, tiling), save, how, sequences>;
    using Step::D, Step::sent_units, Step::padded_k, Step::rows, Step::row_groups, Step::epilogue_warps;
    using Step::column_tiles, Step::columns;
    using Step::in, Step::lane, Step::g, Step::j, Step::warp, Step::rank, Step::head, Step::shared, Step::owner;
    using Step::row_group, Step::unit_group, Step::first_row, Step::own, Step::mail, Step::tile;
    using typename Step::Elements, typename Step::Inputs, typename Step::Mail, typename Step::Stages;

    // ---- sizes ----
    static constexpr int warps = tiling.k_split;
    static constexpr int threads = 32 * warps;
    static constexpr int unit_groups = share_of(shape, tiling).block_units / 8;
    static constexpr int product_gates = count_bits(Cell::recurrent);
    // Rows of the product are halves of tiles, 8 units of one gate: [unit group][gate].
    static constexpr int halves = unit_groups * product_gates;
    static constexpr int tiles = ceil_div(halves, 2);
    static constexpr int pairs = pairs_of(shape, tiling);
    static constexpr int product_column_tiles = rows / 8;

    static_assert(rows % 8 == 0, "whole tiles of sequences");
    static_assert(threads <= 1024, "a block has at most 1024 threads");
    static_assert(epilogue_warps <= warps, "each warp runs the step of one group at most");

    // ---- shared memory ----
    static constexpr StreamedPieces pieces{.tiles = tiles,
                                           .pairs = pairs,
                                           .in_registers = tiling.in_registers,
                                           .stationary = tiling.stationary,
                                           .kept = tiling.kept,
                                           .ring = tiling.ring};
    using Matrix = StreamedMatrix<Type, pieces, product_column_tiles>;
    static constexpr int weights_at = Step::step_bytes;
    static constexpr int sums_at = weights_at + warps * Matrix::shared_bytes;
    // Sums of two groups of 8 units at a time.
    static constexpr int rounds = ceil_div(unit_groups, 2);
    static constexpr int round_tiles = product_gates;
    struct Round {
        static constexpr bool half_filled = false;
        static constexpr int column_tiles = product_column_tiles;
        using Sums = float[round_tiles][column_tiles][4];
    };
    using BlockSums = tilesmith::BlockSums<Round, round_tiles, 1, tiling.k_split>;
    static constexpr int shared_bytes = sums_at + BlockSums::bytes;

    // ---- registers that live through the sequence ----
    Matrix weights;

    // ---- R ----

    struct Row {
        const unsigned short* at;
        int valid;
    };
    /// Where the words of a lane lie, of row g (upper = 0) or g + 8 (upper = 1) of a tile.
    TILESMITH_DEVICE Row row_of(int tile, int k_tile, int upper) const {
        const int half = 2 * tile + upper, gate = half % product_gates;
        const int unit = (rank * unit_groups + half / product_gates) * 8 + g;
        const int k = (k_tile / 2 * warps + warp) * piece_k + k_tile % 2 * 32 + j * 8;
        const bool whole = sent_units == D && halves % 2 == 0;
        const bool valid = (whole || (half < halves && unit < D)) && (padded_k == D || k < D);
        const long long row = (static_cast<long long>(gate) * shape.heads + head) * D + (whole || valid ? unit : 0);
        return {in.r + row * D + (padded_k == D || valid ? k : 0), valid ? D - k : 0};
    }
    TILESMITH_DEVICE auto copier() const {
        return [this](SharedAddress to, int tile, int k_tile, int upper, CachePolicy policy) {
            const Row row = row_of(tile, k_tile, upper);
            copy_row_of_8<vector_width(D)>(to, row.at, row.valid, policy);
        };
    }
    TILESMITH_DEVICE void load_weights() {
        weights.prepare(shared + weights_at + warp * Matrix::shared_bytes, lane);
        weights.load_resident(
            [&](int tile, int k_tile, int upper) {
                const Row row = row_of(tile, k_tile, upper);
                return load_row_of_8<vector_width(D)>(row.at, row.valid);
            },
            copier());
    }

    // ---- h ----

    TILESMITH_DEVICE static void poll(typename Matrix::Moving& moving, const unsigned char* from, int pair) {
#pragma unroll
        for (int k_tile = 0; k_tile < 2; ++k_tile)
#pragma unroll
            for (int column_tile = 0; column_tile < product_column_tiles; ++column_tile)
                moving[k_tile][column_tile] = poll_global_128(from + Mail::Layout::step(2 * warps * pair + k_tile, column_tile));
    }
    TILESMITH_DEVICE static void wait(typename Matrix::Moving& moving, const unsigned char* from, int pair) {
        for (unsigned rounds_of_polls = 0;;) {
            unsigned last = 0;
#pragma unroll
            for (int k_tile = 0; k_tile < 2; ++k_tile)
#pragma unroll
                for (int column_tile = 0; column_tile < product_column_tiles; ++column_tile)
                    last = max(last, Mail::newest(moving[k_tile][column_tile]));
            if (!any_lane(last == poison)) return;
            poll_again(rounds_of_polls);
            if constexpr (tiling.pause > 0) pause(tiling.pause);
            poll(moving, from, pair);
        }
    }

    // ---- one step ----

    using Products = float[column_tiles][columns][product_gates];

    TILESMITH_DEVICE void multiply(typename Matrix::Sums& sums, int t) {
        const unsigned char* from = mail.at + Mail::slot_of(t) + Mail::Layout::offset(warp * (piece_k / 8) + j, g);
        typename Matrix::Moving ahead;
        poll(ahead, from, 0);
        weights.multiply(
            sums, t + 1 == tile.steps,
            [&](typename Matrix::Moving& moving, int pair) {
                wait(ahead, from, pair);
#pragma unroll
                for (int k_tile = 0; k_tile < 2; ++k_tile)
#pragma unroll
                    for (int column_tile = 0; column_tile < product_column_tiles; ++column_tile)
                        moving[k_tile][column_tile] = ahead[k_tile][column_tile];
                if (pair + 1 < pairs) poll(ahead, from, pair + 1);
            },
            copier());
    }

    /// Give the products to the warps that own their elements.
    TILESMITH_DEVICE void share_out(Products& products, const typename Matrix::Sums& sums) const {
        const SharedAddress at = shared + sums_at;
#pragma unroll
        for (int round = 0; round < rounds; ++round) {
            typename Round::Sums part;
#pragma unroll
            for (int i = 0; i < round_tiles; ++i)
#pragma unroll
                for (int column_tile = 0; column_tile < product_column_tiles; ++column_tile)
#pragma unroll
                    for (int k = 0; k < 4; ++k) {
                        const int tile = round * round_tiles + i;
                        part[i][column_tile][k] = tile < tiles ? sums[tile < tiles ? tile : 0][column_tile][k] : 0.0f;
                    }
            sync_block();  // the sums before have been read; in the end all of h(t) has come
            BlockSums::store(part, at, 0, warp, lane);
            sync_block();
            if (!owner || unit_group / 2 != round) continue;
            Elements::for_each([&](int, int column_tile, int column) {
#pragma unroll
                for (int gate = 0; gate < product_gates; ++gate) {
                    const int half = unit_group % 2 * product_gates + gate;
                    const int plane = row_group * (BlockSums::planes / row_groups) + column_tile * columns + column;
                    products[column_tile][column][gate] = BlockSums::sum(at, 0, half / 2, half % 2, plane, lane);
                }
            });
        }
    }

    TILESMITH_DEVICE void run() {
        tile.template prepare<rows>(in, first_row, lane, static_cast<int>(block_y()) * rows);
        load_weights();
        load_bias<Type, Cell>(this->bias, in.b, owner ? ~0u : 0u, own);
        this->load_states();
        this->prepare_transfers();
        this->prepare_mail();
        if (owner) this->begin_steps();
        weights.begin(copier());
        if (padded_k != sent_units && rank == 0) mail.fill(static_cast<int>(thread_index()), threads);
        Stages stages;
        for (int t = 0; t < tile.steps; ++t) {
            Products products{};
            {
                typename Matrix::Sums sums;
                multiply(sums, t);
                share_out(products, sums);
            }
            if (owner) step_elements(t, products, stages);
            if (warp == warps - 1) fence_global();  // for what the block has poisoned until it met: grid_mail.cuh
        }
        if (owner) this->finish();
    }

    TILESMITH_DEVICE void step_elements(int t, const Products& products, Stages& stages) {
        Inputs wx{};
        unsigned restarts = 0, running = ~0u;
        // A step asks for its inputs before more pieces of R than the ring holds, if any come.
        this->template take_inputs<maximum(tiling.num_stages - 2, Matrix::stages)>(wx, restarts, running, t, stages.read);
        this->step(
            t, wx, restarts, running,
            [&](int gate, int column_tile, int column) { return products[column_tile][column][gate]; }, stages, [] {});
    }
};

}  // namespace tilesmith
