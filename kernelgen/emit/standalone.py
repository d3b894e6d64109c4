"""A program's sources as one file: with the headers of cuda/ that it includes written into it, each once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kernelgen.errors import CompileError
from kernelgen.paths import cuda_headers

if TYPE_CHECKING:
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape

MARK = "// A kernel by tilesmith that needs no other file"
"""How the text begins."""

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(\w+)[ \t]*(.*)")
_LEFT_OUT = ("TILESMITH_EMULATE", "TILESMITH_STAMPS")
"""Macros under which the headers hold what is for the emulator, and for `tilesmith profile`, alone."""
_STAMPED = re.compile(r"[ \t]*(#define )?TILESMITH_STAMPED\(.*\)")
"""A line of the latter kind."""


def standalone(program: Program, shape: Shape | None = None) -> str:
    """The kernels of ``program`` with their headers in it, in the order in which a compiler would read them.

    Of one kernel it is the same machine code; where there are several, the compiler may allot registers differently.
    Its first comment says how to compile it and, where ``shape`` is given, how to launch it there. What the headers
    hold for the emulator or for profiles alone is left out. Raises CompileError for a header that cuda/ does not have,
    and for a program of which a library makes a part.
    """
    if program.library:
        raise CompileError(
            f"{program.main.source.entry} is started for every step, between products that cuBLASLt makes "
            f"({program.library[0]}): no file of kernels runs it. Load the configuration with kernelgen.load instead."
        )
    lines, done = _how_to(program, shape), set[str]()
    for place, call in enumerate(program.calls):
        body: list[str] = []
        for line in call.source.text.splitlines():
            included = list(_lines(line, call.source.entry, done))
            (body if included == [line] else lines).extend(included)
        apart = len(program.calls) > 1  # names such as Kernel are every source's own
        lines += [f"namespace call_{place} {{", *body, "}"] if apart else body
    return "\n".join(lines) + "\n"


def _how_to(program: Program, shape: Shape | None) -> list[str]:
    arch, entries = program.main.source.arch, [call.source.entry for call in program.calls]
    what = (
        "The kernel in the cubin is" if len(entries) == 1 else "The kernels in the cubin, which run in this order, are"
    )
    lines = [
        f"{MARK} (Apache-2.0). Compile it with one of:",
        f"//   nvcc -std=c++20 -arch={arch} -cubin -o {entries[0]}.cubin FILE.cu",
        f"//   NVRTC, options --std=c++20 --gpu-architecture={arch}",
        f"// {what} {', '.join(entries)}; the parameters stand at their definitions below.",
    ]
    if shape is None:
        return lines
    lines.append(f"// At the shape it was tuned for ({shape}):")
    for call in program.calls:
        launch = call.launch.at(shape)
        grid = ", ".join(map(str, launch.grid))
        cluster = f", clusters of {launch.cluster} blocks along x" if launch.cluster > 1 else ""
        cooperative = ", a cooperative launch" if launch.cooperative else ""
        lines.append(
            f"//   {call.source.entry}: grid ({grid}), {launch.block} threads a block, {launch.shared_memory} bytes of "
            f"dynamic shared memory{cluster}{cooperative}"
        )
    extents = program.extents(shape)
    lines += [f"//   {axis} of the workspaces: {program.axes[axis]}, here {size}" for axis, size in extents.items()]
    lines += [
        f"//   {name}: {size} bytes, which must all be 0xFF before every launch"
        for name, size in program.poisoned(shape).items()
    ]
    return lines


def _lines(text: str, name: str, done: set[str]) -> Iterator[str]:
    """The lines of a file with its headers in place of their includes; done: the headers that have been written."""
    branches: list[str] = []  # of each conditional around the line: "left out", "device" or, for any other, "kept"
    for line in text.splitlines():
        directive = _DIRECTIVE.fullmatch(line)
        word, rest = directive.groups() if directive else ("", "")
        if word.startswith("if"):
            branches.append("left out" if word == "ifdef" and rest.strip() in _LEFT_OUT else "kept")
            ours = branches[-1] == "left out"
        else:
            ours = bool(branches) and branches[-1] != "kept" and word in ("else", "endif")
        if ours and word == "else":
            branches[-1] = "device"
        elif word == "endif" and branches:
            branches.pop()
        if ours or "left out" in branches or (word, rest.strip()) == ("pragma", "once") or _STAMPED.fullmatch(line):
            continue
        if word == "include" and rest.startswith('"'):
            yield from _header(rest.split('"')[1], name, done)
        else:
            yield line


def _header(name: str, includer: str, done: set[str]) -> Iterator[str]:
    if name in done:
        return
    done.add(name)
    try:
        text = (cuda_headers() / name).read_text(encoding="utf-8")
    except OSError:
        raise CompileError(
            f"{includer} includes {name!r}, which is none of tilesmith's headers ({cuda_headers()}). If the kernel was "
            "tuned with another version of tilesmith, tune it again."
        ) from None
    yield f"// ==== {name} ===="
    yield from _lines(text, name, done)
    yield f"// ==== end of {name} ===="
