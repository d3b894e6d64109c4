"""Run as `python -m oldest_compiler FOLDER`: kernels of every schedule, compiled by the NVRTC that lies in a folder.

It prints the compiler's version, then of each kernel the schedule and what the compiler had against it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

from kernelgen.build.compile import compile_source, compiler_version
from kernelgen.cells import load_cell
from kernelgen.errors import CompileError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan

CELL = "gru"
"""Some of its gates receive no input, some no recurrent product: it takes most branches of the headers."""

ASKED = {"resets": True, "lengths": True, "inputs": 32}
"""What a shape may ask of a schedule that honours it."""


def load(folder: Path) -> None:
    """Load NVRTC, and what it looks for itself, before anybody looks for another."""
    for name in ("libnvrtc-builtins.so.*", "libnvrtc.so.*"):
        for library in folder.rglob(name):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def programs() -> Iterator[tuple[str, Program]]:
    """A small program of every schedule, with all that it honours."""
    cell, profile = load_cell(CELL), load_profile("h200")
    for name in (*schedule_names("forward"), *schedule_names("backward")):
        schedule = get(name)
        shape = Shape(3, 16, 1, 32, save="gates", **{each: ASKED[each] for each in schedule.honours})
        (tiling,) = plan(cell, shape, profile, top=1, schedules=[name])
        yield name, schedule.program(cell, shape, profile, tiling)


def main(folder: Path) -> None:
    load(folder)
    print(compiler_version())
    seen: set[str] = set()
    for name, program in programs():
        errors = []
        for source in (call.source for call in program.calls):
            if source.text not in seen:
                seen.add(source.text)
                try:
                    compile_source(source, cache=None)
                except CompileError as error:
                    errors.append(str(error).replace("\n", " "))
        print(name, *errors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
