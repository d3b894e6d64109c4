"""Faults planted in a copy of a schedule's kernel: the emulator must catch each, and soon."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import EmulationError, ValidationError
from kernelgen.hardware import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.schedules import get
from kernelgen.schedules.base import Launch, Source
from kernelgen.shape import Shape
from kernelgen.validate import emulate_source

pytestmark = pytest.mark.emulated

SEEDS = 20
VALUES = {"units_per_warp": 8, "batch_tile": 8, "k_split": 1, "register_groups": 2, "chains": 1, "prefetch": 3}
SHAPE = Shape(6, 9, 2, 64, save="gates")
CELL = "lstm"

FAULTS = {
    "a removed barrier": (
        "            cp_async_wait<tiling.prefetch - 2>();\n            sync_block();\n        };",
        "            cp_async_wait<tiling.prefetch - 2>();\n        };",
        "race|written",
    ),
    "a swapped buffer index": (
        "own, (buffer ^ 1) * buffer_bytes,",
        "own, buffer * buffer_bytes,",
        "race|differs|written",
    ),
    "a store out of bounds": (
        "store_global_16(in.last + own.state_index(s, octet, column_tile, column),",
        "store_global_16(in.last + in.batch * shape.heads * D * states "
        "+ own.state_index(s, octet, column_tile, column),",
        "last",
    ),
    "a missing wait on an asynchronous copy": (
        "            cp_async_wait<tiling.prefetch - 2>();\n            sync_block();\n        };",
        "            sync_block();\n        };",
        "race|written|landed|copy",
    ),
}


def kernel(planted: tuple[str, str] | None = None) -> tuple[Source, Launch]:
    """The kernel with its schedule's header pasted in, where a fault can be planted."""
    cell, profile, schedule = load_cell(CELL), load_profile("h200"), get("resident")
    tiling = schedule.tiling(cell, SHAPE, profile, VALUES)
    source = schedule.source(cell, SHAPE, profile, tiling)
    header = (cuda_headers() / "resident.cuh").read_text().replace("#pragma once", "")
    if planted is not None:
        before, after = planted
        assert header.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
        header = header.replace(before, after)
    return replace(source, text=source.text.replace('#include "resident.cuh"', header)), schedule.launch(SHAPE, tiling)


def run(source: Source, launch: Launch, seed: int) -> None:
    """Emulate and compare with the reference."""
    emulate_source(load_cell(CELL), SHAPE, source, lambda _: launch, [seed], seq=SHAPE.seq)


def test_the_sound_kernel_passes() -> None:
    source, launch = kernel()
    for seed in range(4):
        run(source, launch, seed)


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: str) -> None:
    before, after, words = FAULTS[fault]
    source, launch = kernel((before, after))
    for seed in range(SEEDS):
        try:
            run(source, launch, seed)
        except (EmulationError, ValidationError) as error:
            print(f"{fault}: caught with seed {seed}: {error}")
            with pytest.raises((EmulationError, ValidationError), match=f"(?i){words}"):
                run(source, launch, seed)
            return
    pytest.fail(f"{fault} was not caught in {SEEDS} seeds")
