"""tilesmith plan: the tilings that fit, ranked by the model."""

from __future__ import annotations

from typing import Any

import click

from kernelgen.commands.console import print_json, print_table, remark, working
from kernelgen.commands.options import (
    CELL_HELP,
    Whole,
    direction_option,
    directions,
    json_option,
    language_option,
    languages,
    make_shape,
    shape_options,
)


@click.command(
    help=f"""Rank the tilings of a cell that fit a GPU, by the model.

{CELL_HELP} Nothing is compiled. Where nothing fits, the message names the limits that clash.

\b
Examples:
  tilesmith plan lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64
  tilesmith plan gru --gpu a100 --batch 1 --seq 100 --heads 4 --head-dim 128 --dtype float16 --top 3
  tilesmith plan lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --direction backward
"""
)
@click.argument("cell", metavar="CELL")
@shape_options
@direction_option("forward", "backward")
@language_option
@click.option("--top", type=Whole(min=1), metavar="K", help="Show only the K best (a table: 10; JSON: all).")
@json_option
def command(cell: str, gpu: str, direction: str, language: str, top: int | None, as_json: bool, **options: Any) -> None:
    """Rank the tilings of a cell."""
    shape = make_shape(options, direction)
    with working(f"planning {cell} at {shape}"):
        from kernelgen.cells import load_cell
        from kernelgen.hardware.doubts import doubts
        from kernelgen.hardware.profile import load_profile
        from kernelgen.tuning.plan import microseconds_per_step, plan

        loaded = load_cell(cell)
        if gpu == "auto":
            from kernelgen.tuning.tune import resolve_gpu  # the driver, which takes long to import, is asked then alone

            profile, _ = resolve_gpu(gpu)
        else:
            profile = load_profile(gpu)
        tilings = plan(loaded, shape, profile, direction=directions(direction)[0], language=languages(language))
    if as_json:
        print_json(
            [
                {
                    "schedule": tiling.schedule,
                    "tiling": dict(tiling.values),
                    "registers": tiling.resources.registers,
                    "shared_memory": tiling.resources.shared_memory,
                    "model_us_per_step": microseconds_per_step(tiling, profile),
                }
                for tiling in tilings[:top]
            ]
        )
        return
    shown = tilings[: top or 10]
    variables = list(dict.fromkeys(name for tiling in shown for name in tiling.values))
    numbers = ("threads", "blocks", "per SM", "registers", "shared memory", "us/step", "ms")
    rows = []
    for rank, tiling in enumerate(shown, 1):
        need, step = tiling.resources, microseconds_per_step(tiling, profile)
        rows.append(
            (
                str(rank),
                tiling.schedule,
                *(str(tiling.values.get(name, "")) for name in variables),
                str(need.threads),
                str(need.blocks),
                str(need.blocks_per_sm),
                str(need.registers),
                f"{need.shared_memory:,}",
                f"{step:.3f}",
                f"{step * shape.seq / 1000:.3f}",
            )
        )
    print_table(("#", "schedule", *variables, *numbers), rows, right=("#", *variables, *numbers), together=variables)
    found = f"{len(shown)} of {len(tilings):,} {direction} tilings of {loaded.name} at {shape} on {profile.name}"
    remark(f"{found}; times by the model")
    for words in doubts(profile):
        remark(f"note: {words}")
