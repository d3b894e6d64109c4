"""Faults planted in a copy of a schedule's kernel: the emulator must catch each, and soon."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from products import ProductCase, error

from kernelgen.cells import load_cell
from kernelgen.errors import EmulationError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.schedules import get
from kernelgen.schedules.shared.matrix_product import TURNED_A, MatrixProduct
from kernelgen.verify.validate import emulate_main

pytestmark = pytest.mark.emulated

SEEDS = 20


@dataclass(frozen=True)
class Sound:
    """A kernel without a fault."""

    schedule: str
    cell: str
    shape: Shape
    values: dict[str, int]


FORWARD = Sound(
    "resident",
    "lstm",
    Shape(6, 9, 2, 32, save="gates"),
    {"units_per_warp": 8, "batch_tile": 8, "k_split": 1, "k_tiles_in_registers": 1, "accumulators": 1, "num_stages": 3},
)
BACKWARD = Sound(
    "resident_backward",
    "gru",
    Shape(6, 9, 2, 32),
    {"batch_tile": 8, "k_tiles_in_registers": 3, "accumulators": 2, "num_stages": 3},
)

HALF = replace(FORWARD, shape=replace(FORWARD.shape, dtype="float16"))
AGAIN = Sound(
    "resident_backward",
    "lstm",
    Shape(6, 9, 2, 32, "float16", recompute=True),
    {
        "batch_tile": 8,
        "k_tiles_in_registers": 4,
        "accumulators": 2,
        "num_stages": 3,
        "recompute_k_tiles_in_registers": 1,
    },
)

OWN_INPUT = Sound(
    "resident",
    "lstm",
    Shape(6, 9, 1, 32, save="gates", inputs=32),
    FORWARD.values | {"input_k_tiles_in_registers": 1, "overlap_input": 1},
)
OWN_INPUT_SPLIT = replace(
    OWN_INPUT, cell="gru", shape=Shape(3, 9, 1, 64, inputs=64), values=OWN_INPUT.values | {"k_split": 2}
)

CLUSTER = Sound(
    "cluster",
    "lstm",
    Shape(6, 9, 1, 64, save="gates"),
    {
        "cluster": 4, "units_per_warp": 8, "batch_tile": 4, "k_split": 1,
        "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 3,
        "transfer_warps": 0,
    },
)  # fmt: skip
CLUSTER_BACKWARD = Sound(
    "cluster_backward",
    "lstm",
    Shape(6, 9, 1, 64),
    {
        "cluster": 4, "batch_tile": 4, "tiles_per_warp": 1,
        "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 4,
    },
)  # fmt: skip
GRID = Sound(
    "grid",
    "lstm",
    Shape(6, 9, 1, 64, save="gates"),
    {
        "blocks": 4, "units_per_warp": 16, "batch_tile": 8, "epilogue_rows": 8, "k_split": 2,
        "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 3, "step_warps": 0, "pause": -1, "owner_pause": 0,
    },
)  # fmt: skip
GRID_ALONE = replace(
    GRID, values=GRID.values | {"units_per_warp": 8, "batch_tile": 4, "epilogue_rows": 4, "k_split": 1}
)
GRID_SPLIT = replace(GRID_ALONE, values=GRID_ALONE.values | {"blocks": 8, "k_split": 2, "accumulators": 1})
GRID_PACED = replace(GRID_SPLIT, values=GRID_SPLIT.values | {"pause": 0, "owner_pause": 200})
GRID_APART = replace(GRID_SPLIT, values=GRID_SPLIT.values | {"step_warps": 1, "pause": 500})
GRID_IN_GROUPS = replace(GRID_APART, values=GRID_APART.values | {"step_warps": 2})
GRID_PADDED = replace(GRID, shape=replace(GRID.shape, head_dim=72), values=GRID.values | {"blocks": 5})
STREAMED_GRID = Sound(
    "streamed_grid",
    "lstm",
    Shape(6, 9, 1, 200, save="gates"),
    {
        "blocks": 13, "batch_tile": 8, "epilogue_rows": 8, "k_split": 3, "in_registers": 1,
        "stationary": 1, "kept": 1, "ring": 3, "num_stages": 2, "pause": 0,
    },
)  # fmt: skip
GRID_BACKWARD = Sound(
    "grid_backward",
    "lstm",
    Shape(6, 11, 1, 64),
    {
        "clusters": 2, "cluster": 2, "batch_tile": 4, "epilogue_rows": 4, "tiles_per_warp": 1, "k_split": 2,
        "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 4, "pause": -1, "owner_pause": 0,
    },
)  # fmt: skip
GRID_BACKWARD_APART = Sound(  # a block multiplies with gates of another cluster's units alone
    "grid_backward",
    "elman",
    Shape(4, 11, 1, 128),
    GRID_BACKWARD.values | {"clusters": 4, "accumulators": 1},
)
GRID_BACKWARD_ALONE = replace(GRID_BACKWARD, values=GRID_BACKWARD.values | {"clusters": 4, "cluster": 1})
GRID_BACKWARD_PACED = replace(
    GRID_BACKWARD,
    shape=replace(GRID_BACKWARD.shape, head_dim=128),
    values=GRID_BACKWARD.values | {"k_split": 4, "tiles_per_warp": 2, "pause": 500, "owner_pause": 200},
)
GRID_BACKWARD_THROUGH_L2 = Sound(
    "grid_backward",
    "lstm",
    Shape(6, 11, 1, 128),
    {
        "clusters": 2, "cluster": 2, "batch_tile": 8, "epilogue_rows": 8, "tiles_per_warp": 4, "k_split": 8,
        "k_tiles_in_registers": 1, "accumulators": 1, "num_stages": 4, "pause": -1, "owner_pause": 0,
        "through_l2": 1, "sums_buffers": 1,
    },
)  # fmt: skip
STREAMING = Sound(
    "streaming",
    "lstm",
    Shape(12, 6, 1, 160, save="gates"),
    {
        "units": 32, "batch_tile": 16, "units_per_warp": 16, "rows_per_warp": 8, "part_k": 32,
        "stationary": 1, "num_stages": 3, "blocks": 0,
    },
)  # fmt: skip
STREAMING_BACKWARD = Sound(
    "streaming_backward",
    "lstm",
    Shape(12, 6, 1, 96),
    {
        "units": 32, "batch_tile": 16, "units_per_warp": 16, "rows_per_warp": 8, "part_k": 32,
        "stationary": 1, "num_stages": 3, "blocks": 0,
    },
)  # fmt: skip
STREAMING_FLOATS = replace(
    STREAMING,
    shape=Shape(6, 6, 1, 64, "float32", "gates"),
    values=STREAMING.values | {"batch_tile": 8, "k_warps": 4},
)
STREAMING_FLOATS_BACKWARD = replace(
    STREAMING_BACKWARD,
    shape=Shape(6, 6, 1, 64, "float32"),
    values=STREAMING_BACKWARD.values | {"batch_tile": 8, "k_warps": 2},
)
WIDE_FORWARD = Sound(
    "wide",
    "lstm",
    Shape(12, 5, 1, 128),
    {"blocks": 4, "units_per_warp": 8, "batch_tile": 16, "turns": 1}
    | {"k_tiles_in_registers": 2, "k_parts": 2, "num_stages": 1},
)
WIDE_BACKWARD = Sound(
    "wide_backward",
    "lstm",
    Shape(12, 6, 1, 64),
    {"blocks": 2, "batch_tile": 32, "warpgroups": 1, "k_tiles_in_registers": 4, "sum_bytes": 4, "prepared": 1},
)
OWN_WIDE_BACKWARD = replace(WIDE_BACKWARD, shape=replace(WIDE_BACKWARD.shape, resets=True, lengths=True))
STREAMING_WHOLE_HEAD = replace(STREAMING_FLOATS, values=STREAMING_FLOATS.values | {"units": 64, "k_warps": 1})
STREAMING_IN_TURN = replace(STREAMING, values=STREAMING.values | {"batch_tile": 8, "stationary": 0, "blocks": 2})
SPLIT = replace(CLUSTER, values=CLUSTER.values | {"k_split": 2, "accumulators": 1})
APART = replace(CLUSTER, values=CLUSTER.values | {"transfer_warps": 1})
APART_SPLIT = replace(SPLIT, values=SPLIT.values | {"transfer_warps": 1})
SHARED = replace(SPLIT, values=SPLIT.values | {"cluster": 2, "batch_tile": 8})
WIDE = replace(
    SPLIT,
    shape=replace(SPLIT.shape, batch=14),
    values=SPLIT.values | {"cluster": 2, "batch_tile": 16, "transfer_warps": 1},
)
OWN = replace(
    FORWARD, shape=replace(FORWARD.shape, seq=70, resets=True, lengths=True)
)  # resets come 32 steps at a time
OWN_LONG = replace(OWN, shape=replace(OWN.shape, seq=290))
OWN_CLUSTER = replace(CLUSTER, shape=replace(CLUSTER.shape, seq=20, resets=True, lengths=True))
OWN_GRID = replace(GRID, shape=replace(GRID.shape, resets=True, lengths=True))
OWN_STREAMING = replace(STREAMING_IN_TURN, shape=replace(STREAMING.shape, resets=True, lengths=True))
OWN_STREAMING_BACKWARD = replace(STREAMING_BACKWARD, shape=replace(STREAMING_BACKWARD.shape, resets=True, lengths=True))
OWN_BACKWARD = replace(BACKWARD, shape=replace(BACKWARD.shape, seq=70, resets=True, lengths=True))
OWN_SELECTED_BACKWARD = replace(OWN_BACKWARD, cell="lstm")  # whose product reads no states from the ring
OWN_LONG_BACKWARD = replace(OWN_BACKWARD, shape=replace(OWN_BACKWARD.shape, seq=290))
APART_POISON = "            mail.template poison<poisoners>(Mail::slot_of(t + Mail::slots - 1));\n"
APART_WRITE = "            if (t > 0) write_results();\n"
APART_SIGNAL = "            cp_async_wait<tiling.num_stages - 2>();\n            signal_ready();\n"

GRID_SLOT_BYTES = (
    "    static constexpr int array_bytes = sent_units / chunk * rows * chunk_bytes;\n"
    "    static constexpr int slot_bytes = padded_k / chunk * rows * chunk_bytes;\n"
    "    static constexpr int bytes = "  # of GridMail
)
WAIT = "            cp_async_wait<tiling.num_stages - 2>();\n"
SLOT_BYTES = (
    "    static constexpr int slot_bytes = Layout::bytes(padded_k);\n    static constexpr int bytes = "  # of HiddenMail
)
ROUNDED = "to_real<Type>(to_16<Type>(value))"
ROUNDED_GATES = (
    "float rough[Cell::gates]; for (int q = 0; q < Cell::gates; ++q) rough[q] = to_real<Type>(to_16<Type>(gate[q])); "
    "Cell::step(rough, state, next);"
)

FAULTS = {
    "x that may not have come": (
        OWN_INPUT,
        "            move_ring(0);\n            cp_async_wait<tiling.num_stages - 2>();\n            sync_block();\n",
        "            move_ring(0);\n            cp_async_wait<tiling.num_stages - 2>();\n",
        "race|nobody has written|lack a barrier",
    ),
    "half of the input's sums": (
        OWN_INPUT_SPLIT,
        "if constexpr (Input::apart_tiles > 0) {",
        "if constexpr (false) {",
        "differs",
    ),
    "h that does not begin anew for the other blocks of a cluster": (
        OWN_CLUSTER,
        "if (begins_anew(column_tile, column)) return initial_state(0, unit_group, column_tile, column);",
        "",
        "differs",
    ),
    "states that do not begin anew in a cluster": (
        OWN_CLUSTER,
        "        if (restarts == 0) return;\n#pragma unroll\n        for (int unit_group = 0;",
        "        return;\n#pragma unroll\n        for (int unit_group = 0;",
        "differs",
    ),
    "h that does not begin anew for the others of a grid": (
        OWN_GRID,
        "if (begins_anew(column_tile, column)) return initial_state(0, 0, column_tile, column);",
        "",
        "differs",
    ),
    "as many steps as a warp's sequences have": (
        replace(
            OWN_GRID,
            shape=replace(OWN_GRID.shape, head_dim=128),
            values=OWN_GRID.values | {"epilogue_rows": 4, "k_split": 4},
        ),
        "tile.template prepare<rows>(in, first_row, lane, static_cast<int>(block_y()) * rows);",
        "tile.prepare(in, first_row, lane, first_row);",
        "differs|never written|deadlock|nobody",
    ),
    "h that does not begin anew in a stream": (
        OWN_STREAMING,
        "if (this->own_of_rows.begins_next(row)) return initial_chunk(tile, row, unit);",
        "",
        "differs",
    ),
    "one place for what steps know of sequences": (
        OWN_STREAMING,
        "at = at == first ? first + place_bytes : first;",
        "at = first;",
        "race",
    ),
    "tiles that have ended": (
        OWN_STREAMING,
        "while (sequences.lengths && next_t < most && next_t >= this->steps_of(in, Tile(number)));",
        "while (false);",
        "differs|deadlock|never|race|bounds|nobody|written|counter",
    ),
    "a gradient of the initial states that a reset forgets in a stream": (
        OWN_STREAMING_BACKWARD,
        "load_stored(sum) + of_element[s] + (s == 0 ? sent_back : 0.0f)",
        "load_stored(sum) + of_element[s]",
        "differs",
    ),
    "gates' gradients behind the end in a stream": (
        OWN_STREAMING_BACKWARD,
        "for (int q = 0; q < gates; ++q) d_gate[q] = 0.0f;",
        "",
        "differs|NaN",
    ),
    "one slot of h, wide": (
        WIDE_FORWARD,
        "static_cast<long long>(slot * groups + group)",
        "static_cast<long long>(0 * slot * groups + group)",
        "race|differs|bulk copy",
    ),
    "h that nobody waits for, wide": (
        WIDE_FORWARD,
        "if (thread == 0) GridBarrier::wait_alone(counter_of(turn), static_cast<unsigned>(blocks * warps) * (t + 1));",
        "",
        "race|nobody|written",
    ),
    "h that comes where results are still read, wide": (
        WIDE_FORWARD,
        "if constexpr (turns == 1) sync_block();",
        "",
        "race|bulk copy",
    ),
    "a product before its part of h has come, wide": (
        WIDE_FORWARD,
        "            wait_for_part(turn, part, t);",
        "",
        "bulk copy|race|under way",
    ),
    "own units that a product may not see yet, wide": (
        WIDE_FORWARD,
        "fence_shared_for_wgmma();  // h will replace what it has stored\n        sync_block();",
        "sync_block();",
        "may not see yet",
    ),
    "own units in the place of others', wide": (
        WIDE_FORWARD,
        "(rank + 1) % blocks * (units / 16)",
        "rank % blocks * (units / 16)",
        "differs",
    ),
    "inputs in the place of those that are to be read, wide": (
        WIDE_FORWARD,
        "Asking{*this, t + tiling.num_stages - 1, steps}",
        "Asking{*this, t + tiling.num_stages, steps}",
        "differs|race|cp_async",
    ),
    "one slot of sums, wide": (
        WIDE_BACKWARD,
        "static_cast<long long>(slot) * ceil_div(in.batch, rows)",
        "static_cast<long long>(0 * slot) * ceil_div(in.batch, rows)",
        "race|differs",
    ),
    "sums that may not have come": (
        WIDE_BACKWARD,
        "if (come) GridBarrier::wait(counter(), static_cast<unsigned>(blocks * warps) * (n + 1));",
        "",
        "race|nobody|written",
    ),
    "sums of a warp that nobody waits for": (
        WIDE_BACKWARD,
        "static_cast<unsigned>(blocks * warps) * (n + 1)",
        "static_cast<unsigned>(blocks * warps - 1) * (n + 1)",
        "race|nobody|written|differs",
    ),
    "sums that are said to be stored before all lanes have": (
        WIDE_BACKWARD,
        "        sync_warp();\n        if (lane == 0) signal_global(counter());",
        "        if (lane == 0) signal_global(counter());",
        "race|nobody|written|lack",
    ),
    "sums from the cache of the multiprocessor": (
        WIDE_BACKWARD,
        "const uint4 four = load_sent_128(from);",
        "const uint4 four = load_stored_128(from);",
        "by way of L2",
    ),
    "sums for other units": (
        WIDE_BACKWARD,
        "units_of_16(opaque(tile));",
        "units_of_16(opaque(tile)) ^ 1;",
        "differs",
    ),
    "gates' gradients that wgmma does not see": (
        WIDE_BACKWARD,
        "            fence_shared_for_wgmma();\n            sync_block();  // the gates' gradients are there",
        "            sync_block();  // the gates' gradients are there",
        "fence_shared_for_wgmma",
    ),
    "gates' gradients that may not be there": (
        WIDE_BACKWARD,
        "            sync_block();  // the gates' gradients are there; what the step reads is read\n",
        "",
        "race|lack|fence|written",
    ),
    "inputs that may not be there": (
        WIDE_BACKWARD,
        "        cp_async_wait<0>();\n        sync_block();  // what the step reads is there",
        "        sync_block();  // what the step reads is there",
        "cp_async|copy|race|written",
    ),
    "a step that is prepared from what may not be there": (
        WIDE_BACKWARD,
        "        sync_block();  // what the step reads is there; the results of the step before are written\n"
        "        before();\n",
        "        before();\n        sync_block();\n",
        "race|lack|copy|cp_async",
    ),
    "a gradient of the initial states that a reset forgets, wide": (
        OWN_WIDE_BACKWARD,
        "load_stored_float(sum) + of_element[s] + (s == 0 ? sent_back : 0.0f)",
        "load_stored_float(sum) + of_element[s]",
        "differs",
    ),
    "states that a sequence does not begin with, wide": (
        OWN_WIDE_BACKWARD,
        "const bool begins = t == 0 || own_of_rows.begins(row);",
        "const bool begins = t == 0;",
        "differs",
    ),
    "h that does not begin anew": (
        OWN,
        "initial_at - buffer * buffer_bytes : 0",
        "0 : 0",
        "differs",
    ),
    "states that do not begin anew": (
        OWN,
        "of_element = begins ? initial[unit_group][column_tile][column][s] : of_element;",
        "",
        "differs",
    ),
    "a reset of another sequence": (
        OWN,
        "flags += static_cast<long long>(sequence) * in.seq;",
        "flags += static_cast<long long>(sequence ^ 1) * in.seq;",
        "differs|bounds",
    ),
    "resets a step late": (
        OWN,
        "find_restarts(t + 1, buffer ^ 1);",
        "find_restarts(t, buffer ^ 1);",
        "differs",
    ),
    "resets of steps 256 and on that nobody copies": (
        OWN_LONG,
        "copy_flags_ahead(t);",
        "",
        "differs|written",
    ),
    "an end a step late": (
        OWN,
        "const unsigned ended = ballot(end == t),",
        "const unsigned ended = ballot(end == t - 1),",
        "differs|NaN|never written",
    ),
    "ends after the first that nobody looks for": (
        OWN,
        "next_end = ended != 0 ? t + 1 : tile.least_end(in, first_row, lane, t + 1);",
        "next_end = ended != 0 ? t + 1 : in.seq + 1;",
        "differs|NaN|never written",
    ),
    "states that go on behind the end": (
        OWN,
        "store_last<Type>(in.last, own, state, ended);",
        "store_last<Type>(in.last, own, state);",
        "differs|NaN",
    ),
    "results that go on behind the end": (
        OWN,
        "writer.redirect(before, shared + zeros_at);",
        "",
        "differs|NaN",
    ),
    "a reset of another sequence in a cluster": (
        OWN_CLUSTER,
        "flags = in.resets + static_cast<long long>(sequence) * in.seq;",
        "flags = in.resets + static_cast<long long>(sequence_at<sequences>(in, first + (lane ^ 1))) * in.seq;",
        "differs|bounds",
    ),
    "resets a step late in a cluster": (
        OWN_CLUSTER,
        "next = tile.flag(t);\n            after = tile.flag(t + direction);",
        "next = 0;\n            after = tile.flag(t);",
        "differs",
    ),
    "an end a step late in a cluster": (
        OWN_CLUSTER,
        "return ballot(t < end);",
        "return ballot(t <= end);",
        "differs|NaN|never written",
    ),
    "states that go on behind the end in a cluster": (
        OWN_CLUSTER,
        "for (int i = 0; i < result_arrays<Cell, save>; ++i) result[i] = 0.0f;\n        return;",
        "for (int i = 0; i < result_arrays<Cell, save>; ++i) result[i] = 0.0f;",
        "differs|NaN",
    ),
    "results behind the end that nobody writes": (
        OWN,
        "writer.write_zeros(in.seq - steps,",
        "writer.write_zeros(in.seq - steps - 1,",
        "never written",
    ),
    "results in the order of the tile": (
        OWN,
        "const int number = static_cast<int>(load_global_32(order + first_row + row(column_tile, column)));",
        "const int number = first_row + row(column_tile, column);",
        "differs|never written",
    ),
    "as many steps as the tile's first sequence has": (
        OWN,
        "return greatest_of_lanes(steps);",
        "return steps;",
        "differs|never written|deadlock|diverged",
    ),
    "states before a step that do not begin anew where a product reads them": (
        OWN_BACKWARD,
        "(t == 0 || (begins >> row & 1) != 0)",
        "t == 0",
        "differs",
    ),
    "resets that are copied a step late": (
        OWN_BACKWARD,
        "ahead.look_up(flags, copied, tile.steps, lane);",
        "ahead.look_up(flags, copied + 1, tile.steps, lane);",
        "differs",
    ),
    "resets of the first 32 steps for all that follow, backward": (
        OWN_SELECTED_BACKWARD,
        "if (n % anew.count == 0 && flagged) {",
        "if (n == 0 && flagged) {",
        "differs",
    ),
    "states before a step that do not begin anew, backward": (
        OWN_SELECTED_BACKWARD,
        "if ((begins >> own.row(column_tile, column) & 1) != 0) {",
        "if (false) {",
        "differs",
    ),
    "a gradient that crosses a reset": (
        OWN_BACKWARD,
        "carry = restarts_here ? 0.0f : carry;",
        "",
        "differs",
    ),
    "a gradient of the initial states that a reset forgets": (
        OWN_BACKWARD,
        "sum = restarts_here ? sum + carry : sum;",
        "sum = restarts_here ? carry : sum;",
        "differs",
    ),
    "resets a step early, backward": (
        OWN_BACKWARD,
        "restarts = begins;\n            begins = anew.at(n);",
        "begins = anew.at(n);\n            restarts = begins;",
        "differs",
    ),
    "resets of steps long before that nobody copies, backward": (
        OWN_LONG_BACKWARD,
        "if ((copied & Flags::part - 1) / anew.count == 2)",
        "if (false)",
        "differs|written",
    ),
    "gates' gradients behind the end": (
        OWN_BACKWARD,
        "d_gate = ended ? 0.0f : d_gate;",
        "",
        "differs|NaN",
    ),
    "gradients of the last states that do not wait for the end": (
        OWN_BACKWARD,
        "carry[s] = ended ? later[s] : carry[s];",
        "carry[s] = ended && n < 0 ? later[s] : carry[s];",
        "differs|NaN",
    ),
    "steps that select nothing before all sequences have begun": (
        OWN_BACKWARD,
        "all_run = tile.steps + 1 - tile",
        "all_run = tile.steps - 3 - tile",
        "differs|NaN",
    ),
    "gradients behind the end that nobody writes": (
        OWN_BACKWARD,
        "writer.write_zeros(in.seq - tile.steps,",
        "writer.write_zeros(0 * tile.steps,",
        "never written|bounds|differs",
    ),
    "poison a step early, backward": (
        CLUSTER_BACKWARD,
        "Mail::poison_slot(mail + received,",
        "Mail::poison_slot(mail + slot,",
        "may not have been read|message under way|nobody has read|does not know|deadlock",
    ),
    "poison left out, backward": (
        CLUSTER_BACKWARD,
        "Mail::poison_slot(mail + received,",
        "if (n > 100) Mail::poison_slot(mail + received,",
        "before the first has been poisoned",
    ),
    "a slot too few, backward": (
        CLUSTER_BACKWARD,
        "return offset == (slots - 1) * slot_bytes ? 0",
        "return offset == (slots - 2) * slot_bytes ? 0",
        "poisoned only after the message|before the first has been poisoned|nobody has read|deadlock",
    ),
    "a lost message, backward": (
        CLUSTER_BACKWARD,
        "Way::send(to + column_tile * 32 * lane_bytes, uint2{",
        "for (bool sent = thread_index() == 5; !sent; sent = true) "
        "Way::send(to + column_tile * 32 * lane_bytes, uint2{",
        "deadlock.*nobody sends a message",
    ),
    "a message to the wrong rank, backward": (
        CLUSTER_BACKWARD,
        "this->lane), unit_warp / unit_warps);",
        "this->lane), (unit_warp / unit_warps + (unit_warp == 2 ? 1 : 0)) % cluster);",
        "is sent two messages|second message|deadlock",
    ),
    "a part that is not added": (
        CLUSTER_BACKWARD,
        "parts[i][word] += parts[i + distance < at_once ? i + distance : i][word];",
        "if (i != 2) parts[i][word] += parts[i + distance < at_once ? i + distance : i][word];",
        "differs",
    ),
    "parts of another's units": (
        CLUSTER_BACKWARD,
        "sums[column_tile][2 * unit_group + column];\n            });",
        "sums[column_tile][2 * (unit_group ^ 1) + column];\n            });",
        "differs",
    ),
    "gradients that are made while the step before is still read": (
        CLUSTER_BACKWARD,
        "buffer_bytes, 0, this->lane,",
        "buffer_bytes * 0, 0, this->lane,",
        "race|differs|written",
    ),
    "sums sent before there is poison for them": (
        CLUSTER_BACKWARD,
        "sync_cluster();  // every block has poison",
        "sync_block();  // every block has poison",
        "has not been poisoned|poisoned only after",
    ),
    "a block that ends while sums are sent to it": (
        CLUSTER_BACKWARD,
        "sync_cluster();  // the last messages have come: a block's memory may go\n        if (owner) {\n"
        "            receive(received);",
        "if (owner) {",
        "ended|differs",
    ),
    "poison a step early, grid": (
        GRID,
        "mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "mail.poison_sent(Mail::slot_of(t));",
        "may not have been read|deadlock",
    ),
    "poison left out, grid": (
        GRID,
        "mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "",
        "before the first has been poisoned",
    ),
    "poison left out from the fourth step on, grid": (
        replace(GRID, shape=replace(GRID.shape, seq=15)),
        "mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "if (t < 4) mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "before the first has been poisoned",
    ),
    "a slot too few, grid": (
        GRID_SPLIT,  # where the warp that fences sends nothing that tells of it
        f"int slots = 8;\n{GRID_SLOT_BYTES}slots",
        f"int slots = 4;\n{GRID_SLOT_BYTES}8",
        "only after it has been polled|deadlock",
    ),
    "no fence of the block": (
        GRID_SPLIT,
        "if (fenced_apart && warp == product_warps - 1) fence_global();",
        "",
        "only after it has been polled",
    ),
    "no fence of a thread": (
        GRID,
        "if (!fenced_apart) fence_global();",
        "",
        "only after it has been polled",
    ),
    "a lost message, grid": (
        GRID,
        "if (sends) send_global_32(at",
        "if (sends && (thread_index() != 5 || slot_offset != 2 * slot_bytes)) send_global_32(at",
        "deadlock.*'mail' are polled for to which nobody sends a message",
    ),
    "messages in the place of another block's": (
        GRID,
        "(own.unit(0) / chunk * rows + sequence) * chunk_bytes",
        "((own.unit(0) / chunk ^ (own.unit(0) < 16 ? 2 : 0)) * rows + sequence) * chunk_bytes",
        "is sent two messages|second message|deadlock",
    ),
    "messages in the place of another sequence": (
        GRID_ALONE,
        "const int sequence = first + own.row(",
        "const int sequence = own.unit(0) < 8 ? 3 - own.row(0, 0) : first + own.row(",
        "differs",
    ),
    "the mail of another tile of the batch": (
        GRID_ALONE,
        "in.mail + tile * mail_words",
        "in.mail + (tile ^ 1) * mail_words * (rank == 0 ? 1 : 0) + (rank == 0 ? 0 : tile * mail_words)",
        "differs|second message|two messages|deadlock",
    ),
    "a part of K that runs ahead, grid": (
        GRID_SPLIT,
        "sync_block();  // all of h(t) has come",
        "if (owner) sync_named(1, threads); else arrive_named(1, threads);  // all of h(t) has come",
        "race|arrives twice|may not have been read",
    ),
    "a block that says a step late that it has sent": (
        GRID_PACED,
        "[] { signal_sent(); }",
        "[&] { if (t > 0) signal_sent(); }",
        "deadlock",
    ),
    "a step that does not wait for sums": (
        GRID_APART,
        "sync_named(sums_barrier + group, sums_threads);",
        "arrive_named(sums_barrier + group, sums_threads);",
        "race|arrives twice|written|may not have been read",
    ),
    "sums that are told of before they are stored": (
        GRID_APART,
        "store_product(t);\n            arrive_named(sums_barrier + part / parts_of_group, sums_threads);",
        "arrive_named(sums_barrier + part / parts_of_group, sums_threads);\n            store_product(t);",
        "race|written|may not have been read|deadlock",
    ),
    "sums that are added before those of their group are told of": (
        GRID_IN_GROUPS,
        "sum_of_parts<parts_of_group>(sums_of(t), group * parts_of_group,",
        "sum_of_parts<parts_of_group>(sums_of(t), (sum_groups - 1 - group) * parts_of_group,",
        "race|written",
    ),
    "sums of one group that are added for another's": (
        GRID_IN_GROUPS,
        "sum_of_parts<parts_of_group>(sums_of(t), group * parts_of_group,",
        "sum_of_parts<parts_of_group>(sums_of(t), 0,",
        "differs",
    ),
    "sums that are overwritten before they are added": (
        replace(GRID_APART, shape=replace(GRID_APART.shape, seq=20)),
        "            sync_named(sent_barrier, threads);",
        "            arrive_named(sent_barrier, threads);",
        "race|arrives twice",
    ),
    "no fence of the block, stepped apart": (
        GRID_APART,
        "if (fenced_apart && warp == product_warps - 1) fence_global();",
        "",
        "only after it has been polled",
    ),
    "two slots too few, stepped apart": (
        replace(GRID_APART, shape=replace(GRID_APART.shape, seq=20)),
        f"int slots = 8;\n{GRID_SLOT_BYTES}slots",
        f"int slots = 4;\n{GRID_SLOT_BYTES}8",
        "only after it has been polled|deadlock",
    ),
    "poison a step early, stepped apart": (
        GRID_APART,
        "mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "mail.poison_sent(Mail::slot_of(t));",
        "may not have been read|deadlock",
    ),
    "no meeting before the sums are read": (
        GRID,
        "sync_block();  // all of h(t) has come",
        "// all of h(t) has come",
        "race|written|may not have been read",
    ),
    "one buffer of sums": (
        GRID,
        "sums_at + (t & 1) * BlockSums::bytes",
        "sums_at",
        "race",
    ),
    "sums of another part of the sequences": (
        GRID,
        "* (BlockSums::planes / row_groups) + column_tile * columns + column;",
        "* (BlockSums::planes / row_groups) + column_tile * columns + (column ^ 1);",
        "differs",
    ),
    "a part of K that is not added": (
        GRID,
        "for (int distance = 1; distance < count; distance *= 2)",
        "for (int distance = 2; distance < count; distance *= 2)",
        "differs",
    ),
    "padding that nobody fills": (
        GRID_PADDED,
        "if (padded_k != sent_units && rank == 0) mail.fill",
        "if (padded_k != sent_units && rank == 99) mail.fill",
        "deadlock.*'mail' are polled for",
    ),
    "results that are written out before they are there, grid": (
        GRID_ALONE,
        "        sync_warp();\n        writer.write",
        "        writer.write",
        "race|written",
    ),
    "results that are overwritten before they are out, grid": (
        GRID_ALONE,
        "sync_warp();  // all lanes' copies are there",
        "// all lanes' copies are there",
        "race",
    ),
    "a piece of R that may not have come": (
        STREAMED_GRID,
        "cp_async_wait<maximum(stages - 1, 0)>();",
        "cp_async_wait<stages>();",
        "cp_async to it may still be under way",
    ),
    "another piece of R than that whose turn it is": (
        STREAMED_GRID,
        "next = next == streamed - 1 ? 0 : next + 1;",
        "next = next == streamed - 2 ? 0 : next + 1;",
        "differs",
    ),
    "pieces of R of the row before": (
        STREAMED_GRID,
        "copy(to + (2 * k_tile + upper) * row_bytes, tile, 2 * pair + k_tile, upper, policy);",
        "copy(to + (2 * k_tile + upper) * row_bytes, tile, 2 * pair + k_tile, 1 - upper, policy);",
        "differs",
    ),
    "inputs that may not have come, streamed grid": (
        # where pieces come, who waits for them has waited for inputs too
        replace(STREAMED_GRID, values=STREAMED_GRID.values | {"stationary": 7, "kept": 0}),
        "take_inputs<maximum(tiling.num_stages - 2, Matrix::stages)>",
        "take_inputs<100>",
        "cp_async to it may still be under way",
    ),
    "sums that are overwritten before they are added, streamed grid": (
        STREAMED_GRID,
        "sync_block();  // the sums before have been read",
        "// the sums before have been read",
        "race|may not have been read",
    ),
    "sums that are added before they are there, streamed grid": (
        STREAMED_GRID,
        "BlockSums::store(part, at, 0, warp, lane);\n            sync_block();",
        "BlockSums::store(part, at, 0, warp, lane);",
        "race|written|may not have been read",
    ),
    "no fence of the block, streamed grid": (
        STREAMED_GRID,
        "if (warp == warps - 1) fence_global();",
        "",
        "only after it has been polled",
    ),
    "poison a step early, streamed grid": (
        STREAMED_GRID,
        "mail.poison_sent(Mail::slot_of(t + Mail::slots - 1));",
        "mail.poison_sent(Mail::slot_of(t));",
        "may not have been read|deadlock",
    ),
    "padding that nobody fills, streamed grid": (
        STREAMED_GRID,
        "if (padded_k != sent_units && rank == 0) mail.fill",
        "if (padded_k != sent_units && rank == 99) mail.fill",
        "deadlock.*'mail' are polled for",
    ),
    "poison a step early, grid backward": (
        GRID_BACKWARD,
        "if (n >= 2) mail.poison_sent(Mail::slot_of(n - 2));",
        "if (n >= 2) mail.poison_sent(Mail::slot_of(n - 1));",
        "may not have been read|deadlock",
    ),
    "poison left out, grid backward": (
        GRID_BACKWARD,
        "if (n >= 2) mail.poison_sent(Mail::slot_of(n - 2));",
        "",
        "before the first has been poisoned",
    ),
    "no fence of the block, grid backward": (
        GRID_BACKWARD,
        "if (fenced_apart && block_warp == warps - 1) fence_global();",
        "",
        "only after it has been polled",
    ),
    "a block that says a step late that it has sent, grid backward": (
        GRID_BACKWARD_PACED,
        "            signal_sent();",
        "            if (n > 0) signal_sent();",
        "deadlock",
    ),
    "no fence of a thread, grid backward": (
        GRID_BACKWARD_ALONE,
        "if (!fenced_apart) fence_global();",
        "",
        "only after it has been polled",
    ),
    "a lost message, grid backward": (
        GRID_BACKWARD,
        "if (sends) send_global_32(at",
        "if (sends && (thread_index() != 8 || array != 3)) send_global_32(at",
        "deadlock.*'mail' are polled for to which nobody sends a message",
    ),
    "sums poisoned a step early": (
        GRID_BACKWARD,
        "SumsMail::poison_received(block_shared + sums_mail_at + received,",
        "SumsMail::poison_received(block_shared + sums_mail_at + SumsMail::after(received),",
        "may not have been read|deadlock|second message|poison",
    ),
    "sums that are not poisoned": (
        GRID_BACKWARD,
        "if (n > 0) SumsMail::poison_received(block_shared",
        "if (n > 99) SumsMail::poison_received(block_shared",
        "before the first has been poisoned",
    ),
    "one slot of sums": (
        GRID_BACKWARD,
        "return offset == (slots - 1) * slot_bytes ? 0",
        "return offset == (slots - 2) * slot_bytes ? 0",
        "shared|poison|deadlock|may not have been read|differs",
    ),
    "sums through L2 poisoned a step early": (
        GRID_BACKWARD_THROUGH_L2,
        "SumsMail::poison_received(received_at() + received)",
        "SumsMail::poison_received(received_at() + SumsMail::after(received))",
        "may not have been read|deadlock|second message|poison",
    ),
    "sums through L2 that are not poisoned": (
        GRID_BACKWARD_THROUGH_L2,
        "if (n > 0) SumsMail::poison_received(received_at() + received);",
        "",
        "before the first has been poisoned",
    ),
    "two slots of sums through L2": (
        GRID_BACKWARD_THROUGH_L2,
        "static_cast<int>(static_cast<unsigned>(n) % slots) * slot_bytes",
        "static_cast<int>(static_cast<unsigned>(n) % 2) * slot_bytes",
        "only after the message has come",
    ),
    "no fence of the block, sums through L2": (
        GRID_BACKWARD_THROUGH_L2,
        "if (fenced_apart && block_warp == warps - 1) fence_global();",
        "",
        "only after it has been polled|only after the message has come",
    ),
    "sums through L2 that go to another block": (
        GRID_BACKWARD_THROUGH_L2,
        "(Step::rank() - rank_of_cluster + block) * SumsMail::bytes",
        "(Step::rank() - rank_of_cluster + (block ^ (owner_warp == from))) * SumsMail::bytes",
        "differs|deadlock|two messages|second message|nobody has read",
    ),
    "one buffer of sums, read late": (
        GRID_BACKWARD_THROUGH_L2,
        "if constexpr (tiling.sums_buffers == 1) sync_block();",
        "",
        "race",
    ),
    "sums of half of the tiles": (
        GRID_BACKWARD_THROUGH_L2,
        "for (int first = 0; first < tiles; first += group) {",
        "for (int first = 0; first < tiles; first += 2 * group) {",
        "differs|uninitialised|poison|nobody has written|unwritten|was never",
    ),
    "sums of another block's units": (
        GRID_BACKWARD,
        "const int unit_group = block * unit_groups + owner_warp / row_groups;",
        "const int unit_group = (block ^ 1) * unit_groups + owner_warp / row_groups;",
        "differs",
    ),
    "another block's part of K": (
        GRID_BACKWARD,
        "0, (rank_of_cluster * tiling.k_split + part) * k_tiles * 4, this->lane);",
        "0, part * k_tiles * 4, this->lane);",
        "differs|deadlock|may not have been read|nobody has read",
    ),
    "no meeting before the sums are sent": (
        GRID_BACKWARD,
        "        sync_block();\n        send_sums(",
        "        send_sums(",
        "race|written",
    ),
    "a cluster that does not meet before the first messages": (
        GRID_BACKWARD_APART,
        "sync_cluster();  // every block has poison where it waits for messages",
        "sync_block();",
        "poison|deadlock|race",
    ),
    "gradients that are written out before they are there": (
        GRID_BACKWARD,
        "sync_warp();  // all lanes' copies are there, and what is written out",
        "",
        "race|written",
    ),
    "a block that does not wait for the others": (
        STREAMING,
        "this->wait(counter_of(tile),",
        "if (block_x() != 1 || t != 4) this->wait(counter_of(tile),",
        "race on the word of 'hidden'|which nobody has written",
    ),
    "a block alone that does not meet": (
        STREAMING_WHOLE_HEAD,
        "sync_block();  // all have stored\n        else",
        ";\n        else",
        "race on the word of 'hidden'|which nobody has written",
    ),
    "a block that waits for all but one": (
        STREAMING,
        "static_cast<unsigned>(unit_tiles) * times);",
        "static_cast<unsigned>(unit_tiles) * times - 1);",
        "race on the word of 'hidden'|which nobody has written",
    ),
    "an arrival before all have stored": (
        STREAMING,
        "sync_block();  // all have stored\n        if",
        "if",
        "race on the word of 'hidden'|which nobody has written",
    ),
    "a wait that the rest of the block does not know of": (
        STREAMING,
        "wait_alone(counter, times);\n        sync_warp();\n        sync_block();",
        "wait_alone(counter, times);\n        sync_warp();",
        "race|which nobody has written",
    ),
    "a ring that is a stage too short": (
        STREAMING,
        "static constexpr int lookahead = p.num_stages - 1;",
        "static constexpr int lookahead = p.num_stages;",
        "race|copy",
    ),
    "a part that is read before it is there": (
        STREAMING,
        "cp_async_wait<p.num_stages - 2>();",
        "cp_async_wait<p.num_stages - 1>();",
        "race|copy",
    ),
    "counters that count from elsewhere": (
        STREAMING,
        "poll_signals(counter) + 1u - times",
        "poll_signals(counter) - times",
        "deadlock",
    ),
    "one slot of h": (
        STREAMING,
        "static_cast<long long>(slot) * batch_tiles",
        "static_cast<long long>(slot * 0) * batch_tiles",
        "race on the word of 'hidden'|cp_async from it",
    ),
    "rings that are filled while they are read": (
        STREAMING,
        "sync_block();  // the inputs are there; the rings are read",
        "",
        "race|copy",
    ),
    "the counter of another tile of the batch": (
        STREAMING_IN_TURN,
        "in.counters + tile.group() * GridBarrier::words",
        "in.counters + (block_x() == 1 ? 0 : tile.group()) * GridBarrier::words",
        "deadlock|race|which nobody has written",
    ),
    "a block that does not wait for the others, backward": (
        STREAMING_BACKWARD,
        "this->wait(counter_of(tile),",
        "if (block_x() != 1 || n != 4) this->wait(counter_of(tile),",
        "race on the word of 'd_gates'|which nobody has written",
    ),
    "one slot of the gates' gradients": (
        STREAMING_BACKWARD,
        "this->stored_of(in.d_gates, tile, slot)",
        "this->stored_of(in.d_gates, tile, slot * 0)",
        "race on the word of 'd_gates'|cp_async from it",
    ),
    "gradients of another gate": (
        STREAMING_BACKWARD,
        "return rank_among(stored, nth_bit(Cell::recurrent, source)); }",
        "return rank_among(stored, nth_bit(Cell::recurrent, source ^ 1)); }",
        "differs",
    ),
    "sums of warps that share K, left while columns are read": (
        STREAMING_FLOATS,
        "sync_block();  // the columns are read",
        "",
        "race|copy",
    ),
    "sums of one warp left out": (
        STREAMING_FLOATS,
        "other < p.k_warps - 1; ++other)",
        "other < p.k_warps - 2; ++other)",
        "differs",
    ),
    "two warps that share K and step": (
        STREAMING_FLOATS,
        "const bool has_elements = k_warp == 0;",
        "const bool has_elements = k_warp <= 1;",
        "race|differs|written",
    ),
    "a product of the low parts that is left out": (
        STREAMING_FLOATS,
        "mma_m16n8k8_tf32(product, a.low, b.high[0], b.high[1], zeros);",
        "mma_m16n8k8_tf32(product, a.high, b.high[0], b.high[1], zeros);",
        "differs",
    ),
    "TF32 alone": (
        STREAMING_FLOATS,
        "low[i] = __float_as_uint(__uint_as_float(word) - __uint_as_float(high[i]));",
        "low[i] = 0;",
        "differs",
    ),
    "h of bfloat16": (
        STREAMING_FLOATS,
        "result[0] = next[0];",
        "result[0] = rounded<bf16>(next[0]);",
        "differs",
    ),
    "words of another row, backward": (
        STREAMING_FLOATS_BACKWARD,
        "+ l / 4 % 4 * 4);",
        "+ (l / 4 % 4 ^ 1) * 4);",
        "differs",
    ),
    "k of the wrong warp, backward": (
        STREAMING_FLOATS_BACKWARD,
        "(turned ? depth * first_step : 0)",
        "(turned ? depth * (first_step ^ 1u) : 0)",
        "differs|race|copy",
    ),
    "states of another tile": (
        STREAMING_IN_TURN,
        "(static_cast<long long>(tile.number) * of_element + number) * elements",
        "(static_cast<long long>(tile.number / 3 * 3) * of_element + number) * elements",
        "differs|race",
    ),
    "poison a step early": (
        CLUSTER,
        "part > 0) mail.template poison<poisoners>(Mail::slot_of(t + Mail::slots - 1));",
        "part > 0) mail.template poison<poisoners>(Mail::slot_of(t));",
        "may not have been read|deadlock",
    ),
    "poison left out": (
        CLUSTER,
        "if (tiling.k_split == 1 || part > 0)",
        "if (t < 0)",
        "has not been poisoned before|before the first has been poisoned",
    ),
    "poison left out from step 7 on": (
        CLUSTER,
        "if (tiling.k_split == 1 || part > 0)",
        "if (t < 7)",
        "second message before the first has been poisoned",
    ),
    "a slot too few": (
        CLUSTER,
        f"int slots = 4;\n{SLOT_BYTES}slots",
        f"int slots = 3;\n{SLOT_BYTES}4",
        "poisoned only after the message|before the first has been poisoned|deadlock",
    ),
    "a lost message": (
        CLUSTER,
        "send_32(to[i] + offset, packed);",
        "if (i != 1 || thread_index() != 5 || slot_offset != 2 * slot_bytes) send_32(to[i] + offset, packed);",
        "deadlock.*nobody sends a message",
    ),
    "a message to the wrong rank": (
        CLUSTER,
        "(rank + block) % cluster",
        "(rank + block + (block == 3 ? 1 : 0)) % cluster",
        "is sent two messages|second message|deadlock",
    ),
    "a message to the wrong place": (
        CLUSTER,
        "own.g / 2 * 4;",
        "(own.g / 2 ^ (own.unit(0) < 8 ? 1 : 0)) * 4;",
        "differs",
    ),
    "lanes that go on without each other": (
        CLUSTER,
        "any_lane(poll() == poison)",
        "poll() == poison",
        "does not know|may not have been read|poisoned only after|without having been polled",
    ),
    "a part of K that runs ahead": (
        SPLIT,
        "{ sync_named(1 + unit_warp, 32 * tiling.k_split); }",
        "{ if (part > 0) arrive_named(1 + unit_warp, 64); else sync_named(1 + unit_warp, 64); }",
        "race|may not have been read|does not know|arrives twice|deadlock",
    ),
    "one buffer of partial sums": (
        SPLIT,
        "buffer = (t * column_tiles + column_tile) & 1;",
        "buffer = 0;",
        "race",
    ),
    "one buffer of partial sums in a step": (
        WIDE,
        "buffer = (t * column_tiles + column_tile) & 1;",
        "buffer = t & 1;",
        "race",
    ),
    "messages in the place of another column tile": (
        WIDE,
        "mail.send(Mail::slot_of(t + 1), column_tile,",
        "mail.send(Mail::slot_of(t + 1), column_tile ^ 1,",
        "differs",
    ),
    "a message before its place is poisoned": (
        CLUSTER,
        "sync_cluster();  // every block has its first h",
        "sync_block();  // every block has its first h",
        "has not been poisoned|poisoned only after",
    ),
    "a block that ends while its memory is written": (
        CLUSTER,
        "sync_cluster();  // the last messages have come",
        "// the last messages have come",
        "ended",
    ),
    "results that are written out before they are there": (
        CLUSTER,
        "                sync_warp();\n                write_results",
        "                write_results",
        "race|written",
    ),
    "results that are overwritten before they are out": (
        CLUSTER,
        "sync_warp();  // all lanes' copies are there",
        "// all lanes' copies are there",
        "race",
    ),
    "an index of 32 bits in a cluster": (
        CLUSTER,
        "(sequence * in.seq * shape.heads + head) * D + place_unit + unit;",
        "((static_cast<unsigned>(sequence) * in.seq * shape.heads + head) * D + place_unit + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "poison after the signal that the next inputs are there": (
        APART,
        APART_POISON + APART_WRITE + APART_SIGNAL,
        APART_WRITE + APART_SIGNAL + APART_POISON,
        "only after the message|only after it has been polled|before the first has been poisoned|deadlock",
    ),
    "poison before h has been read": (
        APART,
        "            mail.template poison<poisoners>(Mail::slot_of(t + Mail::slots - 1));\n            if (t > 0)",
        "            mail.template poison<poisoners>(Mail::slot_of(t));\n            if (t > 0)",
        "may not have been read|message under way|nobody has read|does not know|deadlock",
    ),
    "a signal that h is read before the parts of K have met": (
        APART_SPLIT,
        "{ sync_named(1 + unit_warp, 32 * tiling.k_split); }",
        "{ if (part > 0) arrive_named(1 + unit_warp, 64); else sync_named(1 + unit_warp, 64); }",
        "race|may not have been read|does not know|arrives twice|deadlock",
    ),
    "a signal left out": (
        APART,
        "                signal_left();\n                look_at(t);",
        "                if (t != 3) signal_left();\n                look_at(t);",
        "deadlock",
    ),
    "a signal before the inputs are read": (
        APART,
        "            if (t + 1 < tile.steps) take_inputs();\n            leave(results);",
        "            signal_left(); if (t + 1 < tile.steps) take_inputs();\n            leave(results);",
        "race|written|arrives twice|deadlock",
    ),
    "no wait for the copies of the next inputs": (
        APART,
        "            cp_async_wait<tiling.num_stages - 2>();\n            signal_ready();",
        "            signal_ready();",
        "race|copy",
    ),
    "a wait for copies of a step too few": (
        APART,
        "            cp_async_wait<tiling.num_stages - 2>();\n            signal_ready();",
        "            cp_async_wait<tiling.num_stages - 1>();\n            signal_ready();",
        "race|copy",
    ),
    "inputs that are read without waiting for them": (
        APART,
        "await_ready();  // the next inputs are there",
        "signal_ready();  // the next inputs are there",
        "race|written|copy|poisoned",
    ),
    "inputs into the stage that is read next": (
        APART,
        "begin_copy(t + tiling.num_stages < tile.steps, stage_offset);",
        "begin_copy(t + tiling.num_stages < tile.steps, next_stage(stage_offset));",
        "race|copy",
    ),
    "results that are written out after the signal that they have left": (
        APART,
        APART_WRITE + APART_SIGNAL,
        APART_SIGNAL + APART_WRITE,
        "race",
    ),
    "results that overtake the wait": (
        APART,
        "            await_ready();  // the next inputs",
        "            leave(results);\n            await_ready();  // the next inputs",
        "race",
    ),
    "the last results are not waited for": (
        APART,
        "        await_left();\n        write_results();",
        "        write_results();",
        "race|written|differs|deadlock",
    ),
    "shared polls without a meeting": (
        SHARED,
        "        sync_named(polled_barrier, stepping);\n",
        "",
        "is poison|without having been polled|may not have been read|does not know",
    ),
    "chunks that nobody polls for": (
        SHARED,
        "thread + i * stepping < chunks)",
        "thread + i * stepping < chunks / 2)",
        "is poison|without having been polled|nobody has read|does not know",
    ),
    "a removed barrier": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};\n        TILESMITH",
        f"{WAIT}        }};\n        TILESMITH",
        "race|written",
    ),
    "a barrier that is left out from step 20 on": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};\n        TILESMITH",
        f"{WAIT}            if (t < 20) sync_block();\n        }};\n        TILESMITH",
        "race",
    ),
    "a barrier that is left out from step 20 on, backward": (
        BACKWARD,
        "sync_block();  // the gates' gradients are there",
        "if (n < 20) sync_block();  // the gates' gradients are there",
        "race",
    ),
    "a swapped buffer index": (
        FORWARD,
        "own, (buffer ^ 1) * buffer_bytes,",
        "own, buffer * buffer_bytes,",
        "race|differs|written",
    ),
    "a store out of bounds": (
        FORWARD,
        "store_element(last + own.state_index(s, unit_group, column_tile, column),",
        "store_element(last + (1 << 20) + own.state_index(s, unit_group, column_tile, column),",
        "last",
    ),
    "a missing wait on an asynchronous copy": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};\n        TILESMITH",
        "            sync_block();\n        };\n        TILESMITH",
        "race|written|landed|copy",
    ),
    "a stage that is refilled while it is held": (
        BACKWARD,
        "static constexpr int held = Inputless::products != 0 ? 1 : 0;",
        "static constexpr int held = 0;",
        "race|copy",
    ),
    "a ring that is not cleared where steps are fewer than stages": (
        BACKWARD,
        "if (row_units != real_units || sequences.lengths || in.seq < block.num_stages)",
        "if (row_units != real_units)",
        "written",
    ),
    "sequences past the batch in the sums": (
        BACKWARD,
        "inputless.take(own, [&]",
        "Elements all = own; all.batch = 1 << 30; inputless.take(all, [&]",
        "d_r_partial differs|d_b_partial differs",
    ),
    "an accumulator that nobody initialised": (
        BACKWARD,
        "float first[4] = {0.0f, 0.0f, 0.0f, 0.0f};",
        "float first[4];",
        "differs|NaN",
    ),
    "gates rounded to 16 bits": (
        FORWARD,
        "Cell::step(gate, state, next);",
        ROUNDED_GATES,
        "differs",
    ),
    "gates rounded to 16 bits, float16": (
        HALF,
        "Cell::step(gate, state, next);",
        ROUNDED_GATES,
        "differs",
    ),
    "gates rounded to 16 bits, backward": (
        AGAIN,
        "Cell::prepare(gate, previous,",
        f"for (float& value : gate) value = {ROUNDED}; Cell::prepare(gate, previous,",
        "differs",
    ),
    "a state rounded to 16 bits": (
        FORWARD,
        "state[i] = next[i];",
        "state[i] = to_real<Type>(to_16<Type>(next[i]));",
        "differs",
    ),
    "a state rounded to 16 bits, float16": (
        HALF,
        "state[i] = next[i];",
        "state[i] = to_real<Type>(to_16<Type>(next[i]));",
        "differs",
    ),
    "a carried gradient rounded to 16 bits": (
        BACKWARD,
        "d_gates[unit_group][column_tile][column], carry);",
        f"d_gates[unit_group][column_tile][column], carry); for (float& value : carry) value = {ROUNDED};",
        "differs",
    ),
    "a carried gradient rounded to 16 bits, float16": (
        AGAIN,
        "d_gates[unit_group][column_tile][column], carry);",
        f"d_gates[unit_group][column_tile][column], carry); for (float& value : carry) value = {ROUNDED};",
        "differs",
    ),
    "weights of R that are lost": (
        FORWARD,
        "return load_chunk_of_row<columns>",
        "if (head == 1 && tile_row == 3 && k == 8) return uint4{0, 0, 0, 0}; return load_chunk_of_row<columns>",
        "differs",
    ),
    "a weight of R that is lost, backward": (
        BACKWARD,
        "sync_warp();  // the turn before is read",
        "if (gate == 1 && u == 5 && p == 8) const_cast<unsigned&>(along.y) &= 0xffff0000u; sync_warp();",
        "differs",
    ),
    "wrong results from the third tile of the batch on": (
        FORWARD,
        "Cell::step(gate, state, next);",
        "Cell::step(gate, state, next); if (block_y() >= 2) next[0] *= 1.01f;",
        "differs",
    ),
    "an index of 32 bits: h": (
        FORWARD,
        "(static_cast<long long>(written_sequence(row)) * in.seq * shape.heads + head) * D + unit;",
        "((static_cast<unsigned>(written_sequence(row)) * in.seq * shape.heads + head) * D + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: Wx": (
        FORWARD,
        "return in.wx + (step * shape.heads + head) * D + unit;",
        "return in.wx + static_cast<unsigned>((step * shape.heads + head) * D + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: the size of an array": (
        FORWARD,
        "const long long array_elements = static_cast<long long>(in.batch) * in.seq * shape.heads * D;",
        "const unsigned array_elements = static_cast<unsigned>(in.batch) * in.seq * shape.heads * D;",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: d_wx": (
        BACKWARD,
        "return (input ? in.d_wx : in.d_inputless) + (gate * shape.heads + head) * D + first_unit() + unit;",
        "return in.d_wx + static_cast<unsigned>((gate * shape.heads + head) * D + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: states before a step": (
        BACKWARD,
        "((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + real_unit(unit);",
        "static_cast<unsigned>(((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: states": (
        FORWARD,
        "TILESMITH_DEVICE long long state_index(",
        "TILESMITH_DEVICE unsigned state_index(",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: partial sums": (
        BACKWARD,
        "store_global_float(in.d_r_partial + (slice * D + unit) * D + previous,",
        "store_global_float(in.d_r_partial + static_cast<unsigned>((slice * D + unit) * D + previous),",
        "bounds|not these blocks'|none of the arrays",
    ),
    "gradients of the last states that count with initial states alone": (
        BACKWARD,
        "if (in.d_last != nullptr && own",
        "if (in.d_last != nullptr && in.initial != nullptr && own",
        "differs",
    ),
    "initial states that count with gradients of the last states alone": (
        BACKWARD,
        "} else if (in.initial != nullptr) {",
        "} else if (in.initial != nullptr && in.d_last != nullptr) {",
        "differs",
    ),
    "gradients of the last states that count without initial states alone": (
        BACKWARD,
        "if (in.d_last != nullptr && own",
        "if (in.d_last != nullptr && in.initial == nullptr && own",
        "differs",
    ),
}


def flattened(text: str, seen: set[str]) -> str:
    """A source with every header of cuda/ pasted in where it is first included, but for ptx.cuh and its files."""

    def paste(match: re.Match[str]) -> str:
        name = match[1]
        if name == "ptx.cuh" or name in seen:
            return match[0] if name == "ptx.cuh" else ""
        seen.add(name)
        return flattened((cuda_headers() / name).read_text().replace("#pragma once", ""), seen)

    return re.sub(r'^#include "([a-z_]+\.cuh)"$', paste, text, flags=re.MULTILINE)


def kernel(sound: Sound, planted: tuple[str, str] | None = None) -> Program:
    """The kernel with its headers pasted in, where a fault can be planted."""
    cell, profile, schedule = load_cell(sound.cell), load_profile("h200"), get(sound.schedule)
    tiling = schedule.tiling(cell, sound.shape, profile, sound.values)
    program = schedule.program(cell, sound.shape, profile, tiling)
    return replace(program, main=replace(program.main, source=planted_in(program.main.source, planted)))


def planted_in(source: Source, planted: tuple[str, str] | None) -> Source:
    """A source with its headers pasted in, and a fault in the place of a text that it has once."""
    text = flattened(source.text, set())
    if planted is not None:
        before, after = planted
        assert text.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
        text = text.replace(before, after)
    return replace(source, text=text)


def run(sound: Sound, program: Program, seed: int) -> None:
    """Emulate and compare with the reference."""
    emulate_main(load_cell(sound.cell), sound.shape, program, [seed], seq=sound.shape.seq)


@pytest.mark.parametrize(
    "sound",
    [
        FORWARD,
        BACKWARD,
        CLUSTER,
        SPLIT,
        APART,
        APART_SPLIT,
        SHARED,
        WIDE,
        CLUSTER_BACKWARD,
        GRID,
        GRID_ALONE,
        GRID_SPLIT,
        GRID_PACED,
        GRID_APART,
        GRID_IN_GROUPS,
        GRID_PADDED,
        STREAMED_GRID,
        GRID_BACKWARD,
        GRID_BACKWARD_PACED,
        GRID_BACKWARD_APART,
        GRID_BACKWARD_ALONE,
        GRID_BACKWARD_THROUGH_L2,
        STREAMING,
        STREAMING_IN_TURN,
        STREAMING_BACKWARD,
        STREAMING_FLOATS,
        STREAMING_FLOATS_BACKWARD,
        STREAMING_WHOLE_HEAD,
        WIDE_FORWARD,
        WIDE_BACKWARD,
    ],
    ids=[
        "forward",
        "backward",
        "cluster",
        "K split",
        "transfer warps",
        "transfer warps, K split",
        "shared polls",
        "two column tiles",
        "cluster backward",
        "grid",
        "grid, a warp alone",
        "grid, K split",
        "grid, paced",
        "grid, stepped apart",
        "grid, sums in groups",
        "grid, padded",
        "streamed grid",
        "grid, backward",
        "grid, backward, paced",
        "grid, backward, another cluster's gates",
        "grid, backward, a block alone",
        "grid, backward, sums through L2",
        "streaming",
        "streaming, tiles in turn",
        "streaming backward",
        "streaming floats",
        "streaming floats, backward",
        "streaming, a block alone",
        "wide",
        "wide, backward",
    ],
)
def test_the_sound_kernel_passes(sound: Sound) -> None:
    """With its headers pasted in; more seeds run elsewhere, of kernels as they are."""
    program = kernel(sound)
    for seed in range(2):
        run(sound, program, seed)


def report(run_seed: Callable[[int], None]) -> str:
    """What the first of SEEDS, given to ``run_seed``, that finds a fault says of it; empty where none does."""
    for seed in range(SEEDS):
        try:
            run_seed(seed)
        except (EmulationError, ValidationError) as error:
            return str(error)
    return ""


def assert_caught(run_seed: Callable[[int], None], words: str) -> None:
    """A fault is found, and said in these words."""
    found = report(run_seed)
    assert found, f"not caught in {SEEDS} seeds"
    assert re.search(words, found, re.IGNORECASE | re.DOTALL), found


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: str) -> None:
    sound, before, after, words = FAULTS[fault]
    program = kernel(sound, (before, after))
    assert_caught(lambda seed: run(sound, program, seed), words)


PRODUCT = ProductCase(
    MatrixProduct(40, 72, 200, "bfloat16", a_transposed=True, b_transposed=True), turned=TURNED_A, batch=4, parts=2
)

PRODUCT_FAULTS = {
    "a stage multiplied before its copies have landed": (
        "cp_async_wait<tiling.num_stages - 2>();",
        "cp_async_wait<tiling.num_stages - 1>();",
        "cp_async to it may still be under way",
    ),
    "sums left where others still multiply": ("sync_block();  // all stages are read\n", "\n", "race"),
    "a block that leaves while its sums are read": (
        "sync_cluster();  // nobody leaves while its memory is read\n",
        "\n",
        "end of the kernel",
    ),
    "steps of a sequence that go on into the next": (
        "if (next_time >= seq) next_time -= seq, ++next_sequence;",
        "",
        "out differs|out of bounds",
    ),
}


@pytest.mark.parametrize("fault", PRODUCT_FAULTS)
def test_faults_planted_in_a_matrix_product_are_caught(fault: str) -> None:
    before, after, words = PRODUCT_FAULTS[fault]
    source = planted_in(PRODUCT.kernel[0], (before, after))

    def run_seed(seed: int) -> None:
        if not error(*PRODUCT.emulate(seed, source)) <= 2**-8:
            raise ValidationError("out differs")

    assert_caught(run_seed, words)
