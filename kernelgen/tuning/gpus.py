"""Which GPUs evaluate: what --workers says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kernelgen.errors import LaunchError
from kernelgen.tuning.workers import LocalGpus

if TYPE_CHECKING:
    from kernelgen.tuning.workers import Workers


def named(text: str, devices: Iterable[int], gpu: str) -> Workers | None:
    """What --workers says: a number of this machine's GPUs, or "ray[:ADDRESS]"; all of them where it is empty.

    devices: those with the profile of ``gpu``. None where there are none and nothing was asked for. Raises LaunchError.
    """
    found = tuple(devices)
    if text == "ray" or text.startswith("ray:"):
        from kernelgen.tuning.ray_workers import connect

        return connect(text.removeprefix("ray").removeprefix(":"))
    if not text:
        return LocalGpus(found) if found else None
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) < 1:
        raise LaunchError(f"--workers takes a number of GPUs, or ray, or ray:ADDRESS, not {text[:40]!r}")
    if int(text) > len(found):
        have = f"{len(found)} GPU{'s' if len(found) != 1 else ''} {gpu}" if found else f"no GPU {gpu}"
        raise LaunchError(
            f"--workers {int(text)} asks for as many GPUs, and there is {have} in this machine. Leave it out to use "
            "what is there, or name a Ray cluster with --workers ray:ADDRESS"
        )
    return LocalGpus(found[: int(text)])
