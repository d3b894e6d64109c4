"""tilesmith profile: where the time of a kernel's step goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import print_json, print_table, remark
from kernelgen.commands.options import json_option

if TYPE_CHECKING:
    from kernelgen.tuning.step_profile import Profiled, StepProfile

BAR = 72
"""Characters of a step in the timeline."""

AGREES = 0.1
"""How far the phases may be from a measured step before it is told."""


@click.command()
@click.argument("file", metavar="FILE.yaml", type=click.Path(path_type=Path))
@click.option("--gpu", metavar="FILE", help="The profile it was tuned for, where that is a file of your own.")
@click.option(
    "--plot", metavar="FILE", type=click.Path(path_type=Path), help="Draw the timeline there (.svg, .png, .pdf)."
)
@click.option(
    "--counters", is_flag=True, help="And the GPU's counters, through Nsight Compute (ncu) where it is installed."
)
@json_option
def command(file: Path, gpu: str | None, plot: Path | None, counters: bool, as_json: bool) -> None:
    """Show where the time of a step goes, beside the model's.

    The kernel is compiled once more for each mark in a step, where it reads the clock after a phase, run on the GPU
    that it was tuned for, and compared with itself without marks. What reading the clock takes is taken off. Kernels of
    the schedules resident and cluster have marks, forward and backward; backward it is about the recurrence alone.

    \b
    Examples:
      tilesmith profile lstm.yaml
      tilesmith profile lstm.yaml --plot step.svg
      tilesmith profile lstm.yaml --counters
    """
    from kernelgen.errors import ConfigError, LaunchError
    from kernelgen.records.config_reading import load_config, read_program
    from kernelgen.tuning.step_profile import profile_kernel, require_known
    from kernelgen.tuning.tune import resolve_gpu
    from kernelgen.verify.config_check import find_profile

    if plot is not None and plot.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"a plot is a .svg, .png or .pdf file; {plot} is not named so")
    config = load_config(file)
    require_known(config.schedule)
    profile = find_profile(config, gpu)
    _, devices = resolve_gpu(profile)
    if not devices:
        from kernelgen.device.gpu import why_no_gpu

        why = why_no_gpu() or "this machine has others"
        raise LaunchError(f"a profile needs the GPU that the kernel was tuned for, {config.gpu}: {why}")
    found = profile_kernel(
        config.load_cell(), config.shape, profile, config.to_tiling(), read_program(file), devices[0]
    )
    us = 1e3 * found.plain.median_ms / config.shape.seq
    if as_json:
        print_json(_fields(found, us))
    else:
        _show(found, us)
    if plot is not None:
        from kernelgen.tuning.step_plot import draw

        draw(found.profile, f"{config.cell.name}, {config.shape}, {config.schedule} on {config.gpu}", plot)
        remark(f"wrote {plot}")
    if counters:
        _counters(file)


def _fields(found: Profiled, us: float) -> dict[str, object]:
    """As JSON: clocks of a step by phase, and microseconds of a step, from the phases and measured without marks."""
    profile = found.profile
    return {
        "clocks": dict(profile.phases),
        "model_clocks": dict(profile.model),
        "model_rest_clocks": profile.rest,
        "clock_mhz": profile.clock_mhz,
        "us_per_step": profile.us,
        "measured_us_per_step": us,
        "measured_ms": found.plain.median_ms,
        "stamped_ms": found.stamped.median_ms,
        "mark_clocks": profile.mark,
        "steps": profile.steps,
        "blocks": profile.blocks,
        "spills": found.spills,
    }


def _show(found: Profiled, us: float) -> None:
    """Print the table, the timeline and how far it all is from what was measured."""
    from kernelgen.tuning.step_profile import WORDS

    profile = found.profile
    rows = [
        (name, f"{clocks:.0f}", f"{clocks / profile.clocks:.0%}", f"{profile.model.get(name, 0.0):.0f}", WORDS[name])
        for name, clocks in profile.phases.items()
    ]
    rows.append(
        ("(other)", "", "", f"{profile.rest:.0f}", "what the model has besides: a fixed part, waiting for inputs")
    )
    total = sum(profile.model.values()) + profile.rest
    rows.append(("step", f"{profile.clocks:.0f}", "100%", f"{total:.0f}", ""))
    print_table(("phase", "clocks", "share", "model", "what"), rows, right=("clocks", "share", "model"))
    for line in timeline(profile):
        click.echo(line)
    off = profile.agrees(us) - 1
    click.echo(
        f"the phases add up to {profile.us:.4f} us a step at {profile.clock_mhz:,.0f} MHz; measured without marks: "
        f"{us:.4f} us ({off:+.1%})"
    )
    slower = found.stamped.median_ms / found.plain.median_ms
    click.echo(
        f"{profile.steps:,} steps of {profile.blocks} blocks; reading the clock takes {profile.mark:.0f} clocks, which "
        f"are taken off; with a mark the kernel takes at most {slower:.2f} times as long"
    )
    if abs(off) > AGREES:
        remark(f"note: the phases differ from the measured step by more than {AGREES:.0%}: take them as rough")
    if found.spills:
        remark(f"note: a mark makes the kernel spill {found.spills} bytes per thread, which slows it down")


def timeline(profile: StepProfile) -> list[str]:
    """A step as two lines, each phase as long in its first letter as it takes: measured, and by the model, in which "."
    is what belongs to no phase."""
    total = sum(profile.model.values()) + profile.rest
    scale = BAR / max(profile.clocks, total, 1.0)

    def line(phases: dict[str, float]) -> str:
        text, clocks = "", 0.0
        for name, own in phases.items():
            clocks += own
            text += ("." if name == "" else name[0]) * (round(clocks * scale) - len(text))
        return text

    model = {name: profile.model.get(name, 0.0) for name in profile.phases}
    return [
        f"measured |{line(dict(profile.phases))}",
        f"model    |{line({**model, '': profile.rest})}",
    ]


def _counters(file: Path) -> None:
    """Run the kernel once under Nsight Compute, and print what it counted."""
    from kernelgen.device.counters import count

    if shutil.which("ncu") is None:
        remark("no counters: Nsight Compute (ncu) is not installed")
        return
    rows = count(file)
    print_table(("counter", "value", "unit"), rows, right=("value",))
