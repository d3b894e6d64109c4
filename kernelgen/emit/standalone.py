"""A kernel's source as one file: with the headers of cuda/ that it includes written into it, each once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from kernelgen.errors import CompileError
from kernelgen.paths import cuda_headers

if TYPE_CHECKING:
    from kernelgen.program.launch import Launch
    from kernelgen.program.source import Source

MARK = "// A kernel by tilesmith that needs no other file"
"""How the text begins."""

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(\w+)[ \t]*(.*)")
_EMULATED = "TILESMITH_EMULATE"


def standalone(source: Source, launch: Launch | None = None) -> Source:
    """``source`` with its headers in it, in the order in which a compiler would read them; the same machine code.

    Its first comment says how to compile it and, where ``launch`` is given, how to launch it at the shape that is for.
    What the headers hold for the emulator alone is left out. Raises CompileError for a header that cuda/ does not have.
    """
    lines = [*_how_to(source, launch), *_lines(source.text, source.entry, set())]
    return replace(source, text="\n".join(lines) + "\n")


def _how_to(source: Source, launch: Launch | None) -> list[str]:
    lines = [
        f"{MARK} (Apache-2.0). Compile it with one of:",
        f"//   nvcc -std=c++20 -arch={source.arch} -cubin -o {source.entry}.cubin FILE.cu",
        f"//   NVRTC, options --std=c++20 --gpu-architecture={source.arch}",
        f"// The kernel in the cubin is {source.entry}; its parameters stand at the end of this file.",
    ]
    if launch is not None:
        grid = ", ".join(map(str, launch.grid))
        cluster = f", clusters of {launch.cluster} blocks along x" if launch.cluster > 1 else ""
        cooperative = ", a cooperative launch" if launch.cooperative else ""
        lines += [
            f"// At the shape it was tuned for: grid ({grid}), {launch.block} threads a block, {launch.shared_memory}",
            f"// bytes of dynamic shared memory{cluster}{cooperative}.",
        ]
    return lines


def _lines(text: str, name: str, done: set[str]) -> Iterator[str]:
    """The lines of a file with its headers in place of their includes; done: the headers that have been written."""
    branches: list[str] = []  # of each conditional around the line: "emulated", "device" or, for any other, "kept"
    for line in text.splitlines():
        directive = _DIRECTIVE.fullmatch(line)
        word, rest = directive.groups() if directive else ("", "")
        if word.startswith("if"):
            branches.append("emulated" if (word, rest.strip()) == ("ifdef", _EMULATED) else "kept")
            ours = branches[-1] == "emulated"
        else:
            ours = bool(branches) and branches[-1] != "kept" and word in ("else", "endif")
        if ours and word == "else":
            branches[-1] = "device"
        elif word == "endif" and branches:
            branches.pop()
        if ours or "emulated" in branches or (word, rest.strip()) == ("pragma", "once"):
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
