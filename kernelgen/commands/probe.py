"""tilesmith probe: measure the GPU in this machine, and write its profile."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kernelgen.commands.console import print_json, print_table, progress_bar, remark
from kernelgen.commands.options import json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernelgen.device.gpu import Device
    from kernelgen.hardware.files import ProfileFile
    from kernelgen.hardware.profile import Profile
    from kernelgen.probing.probe import Measured

NO_GPU_ADVICE = "Run this where the GPU is, or write a profile by hand (docs/tutorials/add_a_gpu.md)."


@click.command()
@click.option("--output", "-o", metavar="FILE.yaml", help="Where to write (default: the profile's name, here).")
@click.option("--name", metavar="NAME", help="What the profile is called (default: as the one that is known).")
@click.option(
    "--only",
    metavar="LATENCY",
    multiple=True,
    help="Measure this alone, such as barrier (docs/probe.md lists them); may be given again.",
)
@json_option
@click.pass_context
def command(ctx: click.Context, output: str | None, name: str | None, only: Sequence[str], as_json: bool) -> None:
    """Measure the GPU in this machine, and write its profile.

    A profile is what plans know of a GPU: its limits, and how many clocks the things take that a recurrent kernel waits
    for. This measures them with microbenchmarks, shows each beside the number in use so far, and writes a file that
    --gpu takes, every number with its source. It takes about a minute. Leave the GPU alone meanwhile.

    What no probe can measure (the bandwidth of a data sheet) stays as it is known, with its source. What the GPU does
    not have (clusters of blocks before sm_90) is left out. Ctrl-C keeps what was measured until then.

    \b
    Examples:
      tilesmith probe
      tilesmith probe -o mine.yaml --name mine
      tilesmith probe --only barrier --only mma --json
      tilesmith plan lstm --gpu mine.yaml --batch 16 --seq 1024 --heads 12 --head-dim 64

    docs/probe.md says how each number is measured.
    """
    from kernelgen.commands import INTERRUPTED
    from kernelgen.device import gpu
    from kernelgen.errors import LaunchError
    from kernelgen.hardware.profile import profile_file
    from kernelgen.probing.probe import check_names, measure
    from kernelgen.probing.write import check_output, merge, write

    wanted = check_names(only)
    if name is not None and not name.strip():
        raise click.UsageError("--name is empty")
    if output is not None:
        check_output(Path(output))
    if reason := gpu.why_no_gpu():
        raise LaunchError(f"no GPU to measure: {reason}. {NO_GPU_ADVICE}")
    device = gpu.device()
    profile = device.profile()
    base = profile_file(profile)
    path = Path(output or f"{name or base.name}.yaml")
    check_output(path)
    if name is not None:
        base = base.model_copy(update={"name": name, "aliases": []})
    with progress_bar() as bar:
        measured = measure(
            profile,
            wanted,
            lambda stage, done, total: bar.show(stage, done, total) if total else bar.remark(stage),
            device=device.index,
        )
    for failure in measured.failures:
        remark(f"warning: {failure}")
    file = merge(base, _numbers(device), measured, _sources(device))
    if measured.points:
        write(path, file)
    if as_json:
        print_json(_for_programs(profile, file, measured, path))
    else:
        _table(profile, file, measured)
        click.echo(f"wrote {path}" if measured.points else "nothing was measured, so nothing is written")
    if measured.interrupted:
        remark("interrupted: what was not measured stays as it was")
        ctx.exit(INTERRUPTED)
    if not measured.points:
        ctx.exit(2)


def _numbers(device: Device) -> dict[str, int]:
    """What the driver says of the GPU, by the names that a profile gives."""
    from kernelgen.hardware.profile import numbers_of_device
    from kernelgen.probing.write import OF_THE_DEVICE

    said = numbers_of_device({**device.attributes, "total_memory": device.memory_bytes})
    return {name: said[name] for name in OF_THE_DEVICE if said.get(name)}


def _sources(device: Device) -> dict[str, str]:
    """Where the numbers come from: which GPU, driver, CUDA and day."""
    from kernelgen.build.compile import compiler_version
    from kernelgen.device.gpu import versions
    from kernelgen.probing.write import DEVICE, PROBE

    driver, (major, minor) = versions()
    software = ", ".join([*([f"driver {driver}"] if driver else []), f"CUDA {major}.{minor}"])
    return {
        DEVICE: f"CUDA device attributes of one {device.name}, {software}",
        PROBE: f"measured on one {device.name} by tilesmith probe, {software}, {compiler_version()}, {date.today()}",
    }


def _rows(profile: Profile, measured: Measured) -> list[dict[str, Any]]:
    """Every point that was measured, beside what the profile has had for it."""
    rows: list[dict[str, Any]] = []
    for name, points in measured.points.items():
        for at, variants in points.items():
            row = dataclasses.asdict(variants[0]) | {"name": name, "at": list(at), "known": _known(profile, name, at)}
            row["assumed"] = name in profile.assumed
            rows.append(row | {"variants": {each.variant: each.value for each in variants if each.variant}})
    return rows


def _known(profile: Profile, name: str, at: tuple[int, ...]) -> float | None:
    """What the profile has for a point; None where it has nothing."""
    from kernelgen.errors import ProfileError
    from kernelgen.probing.catalogue import COUNTED

    if name == COUNTED:
        return profile.clusters_that_fit.get(at[0])
    try:
        return profile.latency(name, *at)
    except ProfileError:
        return None


def _for_programs(profile: Profile, file: ProfileFile, measured: Measured, path: Path) -> dict[str, Any]:
    return {
        "name": file.name,
        "file": str(path) if measured.points else None,
        "compared_with": profile.name,
        "numbers": {name: number.value for name, number in file.numbers.items()},
        "sources": file.sources,
        "points": _rows(profile, measured),
        "incomplete": sorted(measured.incomplete),
        "failures": measured.failures,
        "interrupted": measured.interrupted,
    }


def _table(profile: Profile, file: ProfileFile, measured: Measured) -> None:
    """Print what was measured beside what was known."""
    from kernelgen.probing.probe import axes_of

    rows = []
    for name, number in file.numbers.items():
        old = getattr(profile, name)
        rows.append(
            (name, "", f"{number.value:,}", "", "" if old is None else f"{old:,}", _difference(number.value, old))
        )
    for row in _rows(profile, measured):
        value, known = row["value"], row["known"]
        spread = f"{row['least']:.4g} to {row['most']:.4g}" if row["runs"] > 1 else ""
        assumed = " (assumed)" if row["assumed"] and known is not None else ""
        at = ", ".join(f"{axis} {place}" for axis, place in zip(axes_of(row["name"]), row["at"], strict=True))
        shown = "" if known is None else f"{known:.4g}{assumed}"
        rows.append((row["name"], at, f"{value:.4g}", spread, shown, _difference(value, known)))
    columns = ("name", "at", "measured", "spread", profile.name, "difference")
    print_table(columns, rows, right=("measured", "spread", profile.name, "difference"))


def _difference(value: float, known: float | None) -> str:
    return f"{100 * (value / known - 1):+.1f} %" if known else ""
