"""Faults planted in a copy of a schedule's kernel: the emulator must catch each, and soon."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import EmulationError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.schedules import get
from kernelgen.verify.validate import emulate_source

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
    Shape(6, 9, 2, 64, save="gates"),
    {"units_per_warp": 8, "batch_tile": 8, "k_split": 1, "register_groups": 2, "chains": 1, "prefetch": 3},
)
BACKWARD = Sound(
    "resident_backward",
    "gru",
    Shape(6, 9, 2, 64),
    {"batch_tile": 8, "register_groups": 6, "chains": 2, "prefetch": 3},
)

FAULTS = {
    "a removed barrier": (
        FORWARD,
        "            cp_async_wait<tiling.prefetch - 2>();\n            sync_block();\n        };",
        "            cp_async_wait<tiling.prefetch - 2>();\n        };",
        "race|written",
    ),
    "a swapped buffer index": (
        FORWARD,
        "own, (buffer ^ 1) * buffer_bytes,",
        "own, buffer * buffer_bytes,",
        "race|differs|written",
    ),
    "a store out of bounds": (
        FORWARD,
        "store_global_16(in.last + own.state_index(s, octet, column_tile, column),",
        "store_global_16(in.last + in.batch * shape.heads * D * states "
        "+ own.state_index(s, octet, column_tile, column),",
        "last",
    ),
    "a missing wait on an asynchronous copy": (
        FORWARD,
        "            cp_async_wait<tiling.prefetch - 2>();\n            sync_block();\n        };",
        "            sync_block();\n        };",
        "race|written|landed|copy",
    ),
    "a stage that is refilled while it is held": (
        BACKWARD,
        "static constexpr int held = Rest::products != 0 ? 1 : 0;",
        "static constexpr int held = 0;",
        "race|copy",
    ),
    "sums left where others still read": (
        BACKWARD,
        "            sync_block();  // the ring is read\n",
        "",
        "race",
    ),
    "sequences past the batch in the sums": (
        BACKWARD,
        "rest.take(own, value);",
        "Elements all = own; all.batch = 8; rest.take(all, value);",
        "d_r_rest differs|d_b_rest differs",
    ),
}


def kernel(sound: Sound, planted: tuple[str, str] | None = None) -> tuple[Source, Launch]:
    """The kernel with its schedule's header pasted in, where a fault can be planted."""
    cell, profile, schedule = load_cell(sound.cell), load_profile("h200"), get(sound.schedule)
    tiling = schedule.tiling(cell, sound.shape, profile, sound.values)
    source = schedule.source(cell, sound.shape, profile, tiling)
    header = (cuda_headers() / f"{sound.schedule}.cuh").read_text().replace("#pragma once", "")
    if planted is not None:
        before, after = planted
        assert header.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
        header = header.replace(before, after)
    text = source.text.replace(f'#include "{sound.schedule}.cuh"', header)
    return replace(source, text=text), schedule.launch(sound.shape, tiling)


def run(sound: Sound, source: Source, launch: Launch, seed: int) -> None:
    """Emulate and compare with the reference."""
    direction = get(sound.schedule).direction
    cell, shape = load_cell(sound.cell), sound.shape
    emulate_source(cell, shape, source, lambda _: launch, [seed], direction=direction, seq=shape.seq)


@pytest.mark.parametrize("sound", [FORWARD, BACKWARD], ids=lambda sound: str(sound.schedule))
def test_the_sound_kernel_passes(sound: Sound) -> None:
    source, launch = kernel(sound)
    for seed in range(4):
        run(sound, source, launch, seed)


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: str) -> None:
    sound, before, after, words = FAULTS[fault]
    source, launch = kernel(sound, (before, after))
    for seed in range(SEEDS):
        try:
            run(sound, source, launch, seed)
        except (EmulationError, ValidationError) as error:
            print(f"{fault}: caught with seed {seed}: {error}")
            with pytest.raises((EmulationError, ValidationError), match=f"(?i){words}"):
                run(sound, source, launch, seed)
            return
    pytest.fail(f"{fault} was not caught in {SEEDS} seeds")
