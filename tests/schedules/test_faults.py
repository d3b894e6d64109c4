"""Faults planted in a copy of a schedule's kernel: the emulator must catch each, and soon."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import EmulationError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
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

WAIT = "            cp_async_wait<tiling.num_stages - 2>();\n"
ROUNDED = "to_float<Type>(to_16<Type>(value))"

FAULTS = {
    "a removed barrier": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};",
        f"{WAIT}        }};",
        "race|written",
    ),
    "a barrier that is left out from step 20 on": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};",
        f"{WAIT}            if (t < 20) sync_block();\n        }};",
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
        "store_global_16(in.last + own.state_index(s, unit_group, column_tile, column),",
        "store_global_16(in.last + in.batch * shape.heads * D * states "
        "+ own.state_index(s, unit_group, column_tile, column),",
        "last",
    ),
    "a missing wait on an asynchronous copy": (
        FORWARD,
        f"{WAIT}            sync_block();\n        }};",
        "            sync_block();\n        };",
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
        "if (row_units != D || in.seq < tiling.num_stages)",
        "if (row_units != D)",
        "written",
    ),
    "sums left where others still read": (
        BACKWARD,
        "            sync_block();  // the ring is read\n",
        "",
        "race",
    ),
    "sequences past the batch in the sums": (
        BACKWARD,
        "inputless.take(own, value);",
        "Elements all = own; all.batch = 1 << 30; inputless.take(all, value);",
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
        "Cell::step(gate, s, next);",
        f"for (float& value : gate) value = {ROUNDED}; Cell::step(gate, s, next);",
        "differs",
    ),
    "gates rounded to 16 bits, float16": (
        HALF,
        "Cell::step(gate, s, next);",
        f"for (float& value : gate) value = {ROUNDED}; Cell::step(gate, s, next);",
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
        "s[i] = next[i];",
        "s[i] = to_float<Type>(to_16<Type>(next[i]));",
        "differs",
    ),
    "a state rounded to 16 bits, float16": (
        HALF,
        "s[i] = next[i];",
        "s[i] = to_float<Type>(to_16<Type>(next[i]));",
        "differs",
    ),
    "a carried gradient rounded to 16 bits": (
        BACKWARD,
        "d_next, d_gate, carry);",
        f"d_next, d_gate, carry); for (float& value : carry) value = {ROUNDED};",
        "differs",
    ),
    "a carried gradient rounded to 16 bits, float16": (
        AGAIN,
        "d_next, d_gate, carry);",
        f"d_next, d_gate, carry); for (float& value : carry) value = {ROUNDED};",
        "differs",
    ),
    "a weight of R that is lost": (
        FORWARD,
        "return load_row_of_8<width>(in.r + row * D + (valid ? k : 0), valid ? D - k : 0);",
        "uint4 words = load_row_of_8<width>(in.r + row * D + (valid ? k : 0), valid ? D - k : 0); "
        "if (head == 1 && tile_row == 3 && k == 8) words.x &= 0xffffu; return words;",
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
        "Cell::step(gate, s, next);",
        "Cell::step(gate, s, next); if (block_y() >= 2) next[0] *= 1.01f;",
        "differs",
    ),
    "an index of 32 bits: h": (
        FORWARD,
        "return base + (static_cast<long long>(first_row + row) * in.seq * shape.heads + head) * D + unit;",
        "return base + ((static_cast<unsigned>(first_row + row) * in.seq * shape.heads + head) * D + unit);",
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
        "return in.d_wx + ((step * input_gates + input) * shape.heads + head) * D + unit;",
        "return in.d_wx + static_cast<unsigned>(((step * input_gates + input) * shape.heads + head) * D + unit);",
        "bounds|not these blocks'|none of the arrays",
    ),
    "an index of 32 bits: states before a step": (
        BACKWARD,
        "((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + unit);",
        "static_cast<unsigned>(((static_cast<long long>(s) * in.batch + sequence) * shape.heads + head) * D + unit));",
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
    """A source with every header of cuda/ pasted in where it is first included, but for ptx.cuh."""

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
    source = program.main.source
    text = flattened(source.text, set())
    if planted is not None:
        before, after = planted
        assert text.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
        text = text.replace(before, after)
    return replace(program, main=replace(program.main, source=replace(source, text=text)))


def run(sound: Sound, program: Program, seed: int) -> None:
    """Emulate and compare with the reference."""
    emulate_main(load_cell(sound.cell), sound.shape, program, [seed], seq=sound.shape.seq)


@pytest.mark.parametrize("sound", [FORWARD, BACKWARD], ids=lambda sound: str(sound.schedule))
def test_the_sound_kernel_passes(sound: Sound) -> None:
    program = kernel(sound)
    for seed in range(4):
        run(sound, program, seed)


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: str) -> None:
    sound, before, after, words = FAULTS[fault]
    program = kernel(sound, (before, after))
    for seed in range(SEEDS):
        try:
            run(sound, program, seed)
        except (EmulationError, ValidationError) as error:
            print(f"{fault}: caught with seed {seed}: {error}")
            with pytest.raises((EmulationError, ValidationError), match=f"(?i){words}"):
                run(sound, program, seed)
            return
    pytest.fail(f"{fault} was not caught in {SEEDS} seeds")
