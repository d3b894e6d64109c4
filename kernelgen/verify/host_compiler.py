"""The C++ compiler of this machine, which makes libraries for the emulator."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from kernelgen.errors import CompileError, EmulationError
from kernelgen.paths import cuda_headers

_SECONDS = 300.0


def require_compiler() -> None:
    """Raise EmulationError, with what to do about it, where there is no compiler to emulate with."""
    find_compiler()


def find_compiler() -> tuple[str, ...]:
    """The compiler's command: $CXX, else g++, c++ or clang++ from PATH. Raises EmulationError if there is none."""
    asked = os.environ.get("CXX", "")
    try:
        wanted = shlex.split(asked)
    except ValueError as error:
        raise EmulationError(f"$CXX is no command: {asked!r} ({error}). Set it to a C++20 compiler.") from None
    for words in [wanted] if wanted else [["g++"], ["c++"], ["clang++"]]:
        if found := shutil.which(words[0]):
            return (found, *words[1:])
    asked = (
        f"$CXX is {shlex.join(wanted)!r}, which is not there" if wanted else "there is no g++, c++ or clang++ in PATH"
    )
    raise EmulationError(
        f"the emulator needs a C++20 compiler: {asked}. Install g++ (apt install g++), or set CXX to a compiler."
    )


@functools.cache
def compiler_version(command: tuple[str, ...]) -> str:
    """What a compiler prints of itself. Raises EmulationError where it does not run."""
    try:
        done = subprocess.run([*command, "-v"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise EmulationError(
            f"the C++ compiler {shlex.join(command)} does not run: {error}. Set CXX to another."
        ) from None
    return done.stderr


@functools.cache
def knows(command: tuple[str, ...], flag: str) -> bool:
    """Whether a compiler takes an option."""
    try:
        done = subprocess.run(
            [*command, "-x", "c++", "-fsyntax-only", flag, os.devnull],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def compile_file(command: tuple[str, ...], text: str, path: Path, *options: str) -> None:
    """Compile a C++ text with the headers of cuda/ to ``path``; the text lies beside it afterwards.

    Raises CompileError, with the first line that says what is wrong, and what the compiler printed as its log.
    """
    source = path.with_suffix(".cpp")
    source.write_text(text, encoding="utf-8")
    try:
        done = subprocess.run(
            [*command, "-I", str(cuda_headers()), str(source), *options, "-o", str(path)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"it did not finish within {_SECONDS:.0f} s") from None
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:500])
        raise CompileError(first, done.stderr)
