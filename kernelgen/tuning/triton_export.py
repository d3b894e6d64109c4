"""A tuned configuration as a Python file for others: which tilings go into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen.emit.triton_module import Pass, triton_module
from kernelgen.errors import ConfigError, InfeasibleError
from kernelgen.schedules.shared.triton import most_parts
from kernelgen.tuning.plan import plan, spread

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling
    from kernelgen.records.config import TunedConfig

CANDIDATES = 6
"""Tilings of a direction that the file lists for its own autotuning, about."""

SCHEDULES: Mapping[Direction, tuple[str, str]] = {
    "forward": ("triton_resident", "triton_streaming"),
    "backward": ("triton_resident_backward", "triton_streaming_backward"),
}
"""Those whose kernels a file holds: the second where the first has no tiling, or was not what was tuned."""


def exported(configs: Sequence[TunedConfig], profile: Profile) -> str:
    """The text of the file for the cell and the shape of the first configuration.

    configs: of one cell at one size; those of Triton's schedules give the tiling of their direction, which the model
    chooses where there is none. Raises ConfigError for configurations that do not go together, InfeasibleError
    where the schedules have no tiling.
    """
    first = configs[0]
    cell = first.load_cell()
    for other in configs[1:]:
        if other.cell.fingerprint != first.cell.fingerprint or _sizes(other.shape) != _sizes(first.shape):
            raise ConfigError(
                f"{other.cell.name} at {other.shape} and {first.cell.name} at {first.shape} do not go into one file: "
                "cell, heads, head dimension and dtype must be the same"
            )
    return module_of(cell, first.shape, profile, {config.schedule: config for config in configs})


def module_of(cell: Cell, shape: Shape, profile: Profile, tuned: Mapping[str, TunedConfig]) -> str:
    """The text of the file for a cell. tuned: what there is, by the schedules' names."""
    whole = replace(shape, save="gates", recompute=False)
    ahead, back = (
        _pass(cell, whole, profile, direction, next((tuned[name] for name in names if name in tuned), None))
        for direction, names in SCHEDULES.items()
    )
    return triton_module(cell, shape, profile.title, profile.arch, ahead, back, most_parts(cell, whole, profile))


def backward_beside(path: Path) -> Path:
    """Where `tilesmith tune --direction both` writes the backward kernel that goes with a forward one."""
    return path.with_name(f"{path.stem}_backward{path.suffix}")


def _sizes(shape: Shape) -> tuple[object, ...]:
    return shape.heads, shape.head_dim, shape.dtype


def _pass(cell: Cell, shape: Shape, profile: Profile, direction: Direction, tuned: TunedConfig | None) -> Pass:
    resident, streaming = SCHEDULES[direction]
    if tuned is not None:
        names = [tuned.schedule]
    else:
        names = [resident] if _fits(resident, cell, shape, profile) else [streaming]
    tilings = spread(plan(cell, shape, profile, schedules=names, direction=direction))
    chosen = tilings[0] if tuned is None else tuned.to_tiling()
    if missing := sorted(tilings[0].values.keys() - chosen.values.keys()):
        raise ConfigError(
            f"the {direction} configuration was tuned before {chosen.schedule} had the variables {', '.join(missing)}: "
            "tune it again"
        )
    others = [tiling for tiling in tilings if _alike(tiling, chosen, streaming)]
    return Pass(
        dict(chosen.values),
        [dict(tiling.values) for tiling in others[: CANDIDATES - 1]],
        _proved(chosen, tuned),
        chosen.schedule == streaming,
    )


def _fits(schedule: str, cell: Cell, shape: Shape, profile: Profile) -> bool:
    try:
        return bool(plan(cell, shape, profile, top=1, schedules=[schedule]))
    except InfeasibleError:
        return False


def _alike(tiling: Tiling, chosen: Tiling, streaming: str) -> bool:
    """Whether both differ only in what one text takes as constants: in a resident kernel num_stages is none."""
    same = chosen.schedule == streaming or tiling.values["num_stages"] == chosen.values["num_stages"]
    return same and dict(tiling.values) != dict(chosen.values)


def _proved(chosen: Tiling, tuned: TunedConfig | None) -> str:
    if tuned is None:
        return f"{chosen}, by the model; neither measured nor validated."
    checked = tuned.validation
    where = "on the GPU" if checked.where == "gpu" else "in Triton's interpreter"
    text = f"{chosen}, validated {where} against float64: relative error {checked.worst:.1e}"
    return text + (f"; measured {tuned.measured.median_ms:.4f} ms." if tuned.measured else "; not measured.")
