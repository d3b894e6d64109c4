"""A measured GPU as a profile's file: what was measured, laid over what is known of the GPU already."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from kernelgen.build.cache import write_together
from kernelgen.errors import ProfileError
from kernelgen.hardware.files import LATENCIES, ClusterCounts, Latency, Number, ProfileFile, Sourced, Table
from kernelgen.hardware.profile import load_profile
from kernelgen.probing.catalogue import COUNTED
from kernelgen.probing.probe import At, Measured, Point

DEVICE, PROBE = "device", "probe"
"""The keys of the sources that a probe adds: what the driver says of the GPU, and what was measured."""

OF_THE_DEVICE = ("multiprocessors", "clock_mhz", "memory_bytes", "l2_bytes")
"""Numbers of a GPU's file that the driver says."""


def merge(base: ProfileFile, numbers: Mapping[str, int], measured: Measured, about: Mapping[str, str]) -> ProfileFile:
    """The profile's file after a probe.

    base: what is known of the GPU. numbers: of the device, see OF_THE_DEVICE. about: the texts of the sources DEVICE
    and PROBE. What was not measured, or not all of it, stays as it is in ``base``, with its source; sources that
    nothing comes from any more go.
    """
    latencies = dict(base.latencies)
    counted = base.clusters_that_fit
    for name, points in measured.points.items():
        if name == COUNTED:
            if counted is None or name not in measured.incomplete:
                counted = ClusterCounts(
                    value={at[0]: int(found[0].value) for at, found in points.items()}, source=PROBE
                )
        elif name not in latencies or name not in measured.incomplete:
            latencies[name] = Latency(value=_table(points), source=PROBE)
    known = {**base.numbers, **{name: Number(value=value, source=DEVICE) for name, value in numbers.items()}}
    every: list[Sourced] = [*known.values(), *latencies.values(), *([counted] if counted else [])]
    used = {each.source for each in every}
    sources = {**base.sources, **about}
    return base.model_copy(
        update={
            "numbers": known,
            "latencies": {name: latencies[name] for name in LATENCIES if name in latencies},
            "clusters_that_fit": counted,
            "sources": {key: text for key, text in sources.items() if key in used},
        }
    )


def rounded(clocks: float) -> float:
    """As a profile writes it: tenths of a clock, whole clocks from 100 on."""
    return round(clocks, 1) if clocks < 100 else float(round(clocks))


def _table(points: Mapping[At, list[Point]]) -> Table:
    by_one: dict[int, float] = {}
    by_two: dict[int, dict[int, float]] = {}
    for at, found in sorted(points.items()):
        clocks = rounded(found[0].value)
        if not at:
            return clocks
        if len(at) == 1:
            by_one[at[0]] = clocks
        else:
            by_two.setdefault(at[0], {})[at[1]] = clocks
    return by_two or by_one


def text_of(file: ProfileFile) -> str:
    """The file as YAML, in the form of those in profiles/."""
    lines = [f"name: {_string(file.name)}", f"title: {_string(file.title)}"]
    for field, names in (("aliases", file.aliases), ("devices", file.devices)):
        if names:
            lines.append(f"{field}: [{', '.join(_string(name) for name in names)}]")
    lines.append(f"arch: {file.arch}")
    if file.sources:
        lines += ["", "sources:", *(f"  {key}: {_string(text)}" for key, text in file.sources.items())]
    if file.numbers:
        lines += ["", "numbers:"]
        lines += [f"  {name}: {_valued(_whole(each.value), each.source)}" for name, each in file.numbers.items()]
    if file.clusters_that_fit:
        counted = file.clusters_that_fit
        lines += ["", "# Blocks that take all the shared memory that they may.", f"{COUNTED}: "]
        lines[-1] += _valued(_flow(counted.value), counted.source)
    if file.latencies:
        lines += ["", "latencies:"]
        for name, latency in file.latencies.items():
            lines += _latency(name, latency)
    return "\n".join([*lines, ""])


def _latency(name: str, latency: Latency) -> list[str]:
    table = latency.value
    if isinstance(table, dict) and all(isinstance(inner, dict) for inner in table.values()):
        rows = [f"      {key}: {_flow(inner)}" for key, inner in table.items() if isinstance(inner, dict)]
        return [f"  {name}:", f"    source: {_string(latency.source)}", "    value:", *rows]
    value = _flow(table) if isinstance(table, dict) else _clocks(table)
    return [f"  {name}: {_valued(value, latency.source)}"]


def _valued(value: str, source: str) -> str:
    return f"{{value: {value}, source: {_string(source)}}}"


def _flow(table: Mapping[int, object]) -> str:
    return "{" + ", ".join(f"{key}: {_clocks(value)}" for key, value in table.items()) + "}"


def _clocks(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else f"{value}"


def _whole(value: int) -> str:
    return f"{value:_}" if value >= 100_000 else str(value)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-().;/")


def _string(text: str) -> str:
    """Plain where that can be nothing but a string, else in quotes."""
    plain = text[:1].isalpha() and text == text.strip() and _PLAIN.issuperset(text)
    reserved = text.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return text if plain and not reserved else json.dumps(text)


def check_output(path: Path) -> None:
    """Raise ProfileError if a profile could not be written at ``path``; nothing is created.

    What is there now may be replaced if it is a profile.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ProfileError(f"a profile is a .yaml file; {path} is not named so")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        raise ProfileError(f"cannot write {path}: {'it is' if path.is_dir() else f'{folder} is not'} a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ProfileError(f"cannot write {path}: no permission to write in {folder}")
    if path.exists():
        try:
            load_profile(path)
        except ProfileError as error:
            raise ProfileError(
                f"{path} is there and is no GPU profile, so it is not replaced; move it away, or choose another name "
                f"with --output ({error})"
            ) from error


def write(path: Path, file: ProfileFile) -> None:
    """Write the file, whole or not at all. Raises ProfileError."""
    try:
        write_together([(path, text_of(file).encode())])
    except OSError as error:
        raise ProfileError(f"cannot write {path}: {error.strerror or error}") from error
