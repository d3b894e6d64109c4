"""The timeline of a step as a picture: measured above, the model's below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen.errors import ConfigError

if TYPE_CHECKING:
    from kernelgen.tuning.step_profile import StepProfile

INSTALL = "pip install matplotlib"


def draw(profile: StepProfile, title: str, path: Path) -> None:
    """Write the picture, in the format that the path's suffix names. Raises ConfigError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"a plot needs matplotlib: {INSTALL}") from error
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.add_subplot()
    colours = {name: f"C{place}" for place, name in enumerate(profile.phases)}
    lines = {"measured": dict(profile.phases), "model": {name: profile.model.get(name, 0.0) for name in profile.phases}}
    lines["model"]["other"] = profile.rest
    for place, phases in enumerate(lines.values()):
        begin = 0.0
        for phase, clocks in phases.items():
            axes.barh(
                place,
                clocks,
                left=begin,
                color=colours.get(phase, "0.8"),
                label=phase if place == 0 or phase == "other" else None,
            )
            begin += clocks
        axes.text(begin, place, f" {begin:.0f}", va="center")
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set_xlabel("clocks of a step")
    axes.set_title(title, fontsize=10)
    axes.legend(ncols=len(colours) + 1, loc="upper center", bbox_to_anchor=(0.5, -0.3), frameon=False, fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
