// The resident schedule, backward: one block holds the recurrent matrix of one head and runs a tile of the batch from
// the last step to the first.
//
// The pointwise step turns the gradients of the new states into those of the gates, in the lane that owns the unit.
// They travel through shared memory, and the transposed R turns them on the tensor cores into the gradient of the
// previous h, which ends in the lane that owns that unit: one barrier a step, as forward. What the step computes again
// from the gates does not wait for that product, and runs beside the one of the step before; so do the gates' sums, where
// they were not saved. The gradients of R and b follow from what is written here (parameter_gradients.cuh), but for those
// of the gates without an input, which are summed on the way (partial_gradients.cuh).
//
// A warp owns 16 units: lane (g, j) has units g and g + 8, sequences 2j and 2j + 1 (or j, with 4 sequences).
#pragma once

#include "backward_step.cuh"

namespace tilesmith {

/// The tile variables; kernelgen/schedules/resident/backward.py states their constraints.
struct ResidentBackwardTiling {
    int batch_tile;       // sequences per block: 4, or a multiple of 8
    int k_tiles_in_registers;  // k-tiles, of 64 bytes of rows of R, that stay in registers
    int accumulators;           // independent accumulators
    int num_stages;         // stages of the ring that holds saved values and gradients
    int recompute_k_tiles_in_registers = 0;  // k-tiles of columns of R that stay in registers to compute the gates again
    int keeps_rests = 0;  // in float32, 1: of the words of R transposed in registers what TF32 leaves of them is there too
};

/// What a block of the schedule is to BackwardStep.
template <FixedShape shape, ResidentBackwardTiling tiling>
inline constexpr BackwardBlock resident_backward_block{.sharing = Sharing::nobody,
                                                       .blocks = 1,
                                                       .threads = 32 * ceil_div(shape.head_dim, 16),
                                                       .rows = tiling.batch_tile,
                                                       .num_stages = tiling.num_stages,
                                                       .recompute_k_tiles_in_registers = tiling.recompute_k_tiles_in_registers};

/// state_gradients: the number K of states whose gradients come from outside: 1 (h) or all.
template <class Cell, class Type, FixedShape shape, ResidentBackwardTiling tiling, int state_gradients, Gates source, Stores how,
          Sequences sequences = Sequences{}>
struct ResidentBackward
    : BackwardStep<Cell, Type, shape, resident_backward_block<shape, tiling>, state_gradients, source, how, sequences> {
    using Step = BackwardStep<Cell, Type, shape, resident_backward_block<shape, tiling>, state_gradients, source, how, sequences>;
    using typename Step::Elements;
    using typename Step::Inputless;
    using typename Step::Sums;
    using Matrix = StationaryMatrix<Type, 1, Step::k_tiles, tiling.k_tiles_in_registers, Step::rows, tiling.accumulators,
                                    tiling.keeps_rests != 0>;
    static constexpr int weights_at = Step::step_end;
    static constexpr int sums_at = weights_at + Step::unit_warps * Matrix::shared_bytes;
    static constexpr int shared_bytes = sums_at + (Step::recompute ? Step::unit_warps * Sums::shared_bytes : 0);

    Matrix weights;
    TILESMITH_STAMPED(Stamps stamps;)

    /// The product: the gates' gradients in a buffer become that of h before the step.
    TILESMITH_DEVICE void multiply(int buffer) {
        constexpr int columns = Step::columns;
        if constexpr (!Cell::recurrent_cut) {
            auto& carried = this->carried;
            typename Matrix::Sums d_hidden;
            weights.multiply(d_hidden, this->shared + buffer * Step::buffer_bytes, 0, this->lane, [&](int, int column_tile, int i) {
                return i % 2 < columns ? carried[i / 2][column_tile][i % 2 < columns ? i % 2 : 0][0] : 0.0f;
            });
            Elements::for_each([&](int unit_group, int column_tile, int column) {
                carried[unit_group][column_tile][column][0] = d_hidden[0][column_tile][2 * unit_group + column];
            });
        }
    }

    static constexpr int held = Step::held, last_stage = Step::last_stage, stage_bytes = Step::Ring::stage_bytes;

    int stage_offset;

    /// The n-th step of a block.
    template <bool whole>
    TILESMITH_DEVICE void run_step(int n, int buffer, Constant<whole> before_ends) {
        this->finish(buffer, n, before_ends);
        TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
        cp_async_wait<tiling.num_stages - 2 - held>();
        sync_block();  // the gates' gradients are there, and the inputs of the step after this one
        TILESMITH_STAMPED(stamps.mark(Phase::meeting);)
        multiply(buffer);
        this->inputless.multiply(this->shared + Step::ring_at + stage_offset + Step::hidden_at, this->lane);
        TILESMITH_STAMPED(stamps.mark(Phase::matrix);)
        const int next = stage_offset == last_stage ? 0 : stage_offset + stage_bytes;
        this->prepare(next);  // beside the product; after the last step, of what lies there
        TILESMITH_STAMPED(stamps.mark(Phase::pointwise);)
        this->write_out(buffer);
        this->refill(n, held == 0 ? stage_offset : stage_offset == 0 ? last_stage : stage_offset - stage_bytes);
        stage_offset = next;
        TILESMITH_STAMPED(stamps.step(Phase::transfers);)
    }

    TILESMITH_DEVICE void run() {
        this->load_weights(weights, this->shared + weights_at + this->warp * Matrix::shared_bytes,
                           [&](int) { return this->warp * Step::units; });
        if constexpr (Step::recompute)
            this->sums.load(this->in, this->shared + sums_at + this->warp * Sums::shared_bytes, this->lane, this->own);
        load_bias<Type, Cell>(this->bias, this->in.b, Step::recomputed_gates, this->own);
        this->inputless.clear();
        this->find_ends();  // late: R is loaded with every register there is
        this->load_last();
        sync_block();
        this->clear_padding();
        sync_block();
        this->begin_copies();
        sync_block();
        this->load_initial();
        this->prepare(0);
        stage_offset = 0;
        TILESMITH_STAMPED(stamps.start(this->in.stamps, this->warp == 0);)
        this->for_each_step(*this);
        TILESMITH_STAMPED(stamps.finish();)
        if constexpr (Inputless::members != 0) this->inputless.write_out(this->in, this->own, static_cast<int>(block_y()));
        this->store_initial();
    }
};

}  // namespace tilesmith
