"""Source to cubin, and what the compiler says the kernel needs. No GPU and no driver are needed.

CUDA C++ is compiled with NVRTC, Triton in triton.py.

NVRTC is called through cuda-core's own binding of it (cuda.bindings) and not through cuda.core.Program: Program asks
for a driver in cuda-core 0.5, hides the compiler's log in the text of a private exception, and takes 0.4 s to import.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kernelgen.build import triton
from kernelgen.build.cache import Cache, binary_key, source_hash
from kernelgen.errors import CompileError
from kernelgen.paths import cache_root, cuda_headers

if TYPE_CHECKING:
    from kernelgen.program.program import Program
    from kernelgen.program.source import Language, Source

OPTIONS = ("--std=c++20", "--no-source-include", "--no-cache", "--ptxas-options=-v")
"""What the compiler is told besides the architecture and the include path. Headers are taken from cuda/ alone: NVRTC
would otherwise look in the current folder first. Nor does it use the driver's cache: a cached kernel comes without its
report."""

_INSTALL = "Install it with: pip install 'cuda-core[cu13]' nvidia-cuda-nvrtc"


@dataclass(frozen=True)
class Report:
    """What the assembler (ptxas) says an entry needs.

    registers: per thread. stack: bytes of stack frame per thread. spill_stores, spill_loads: bytes per thread, those
    of functions that were not inlined included. static_shared_memory: bytes per block, without the dynamic part.
    barriers: named barriers of the block in use (at most 16).
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared_memory: int
    barriers: int

    @property
    def spills(self) -> int:
        """Bytes per thread that did not fit in registers, stores and loads together."""
        return self.spill_stores + self.spill_loads

    @property
    def local_memory(self) -> int:
        """Bytes per thread outside registers: what was spilled, and arrays that some index keeps from them."""
        return max(self.stack, self.spills)


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    cubin: an ELF image for ``arch`` whose kernel is ``entry``. compiler: such as "NVRTC 13.5". key: its name in the
    cache. source_hash: the name of the source it was made from (cache.source_hash). seconds: what compiling took when
    it was done. cached: whether it came from the cache. log: all that the compiler printed, warnings included.
    """

    cubin: bytes
    entry: str
    arch: str
    report: Report
    compiler: str
    key: str
    source_hash: str
    seconds: float
    cached: bool
    log: str


def compile_source(source: Source, *, cache: Cache | Literal["default"] | None = "default") -> Binary:
    """Compile ``source`` for its architecture, or take the binary from the cache.

    cache: where to look and keep; None for neither; by default the user's cache. A cache that cannot be used costs
    time, never a failure. Safe to call from several threads; the compiler runs without the interpreter's lock.

    Raises CompileError when NVRTC is missing, does not know the architecture, or refuses the source: the message
    shows the first error with its line, ``log`` has the rest.
    """
    if cache == "default":
        cache = _default_cache(cache_root())
    if source.language == "triton":
        compiler = triton.version()
        key = binary_key(source, (), compiler)
    else:
        compiler, build = _compiler()
        key = binary_key(source, OPTIONS, f"{compiler} {build}")
    if cache is not None and (entry := cache.load(key)) is not None:
        return _restore(*entry)
    start = time.perf_counter()
    cubin, log = triton.run(source) if source.language == "triton" else _run(source, compiler)
    seconds = time.perf_counter() - start
    report = parse_report(log, source.entry)
    binary = Binary(
        cubin, source.entry, source.arch, report, compiler, key, source_hash(source), seconds, cached=False, log=log
    )
    if cache is not None:
        record = {f.name: getattr(binary, f.name) for f in dataclasses.fields(binary) if f.name not in _NOT_KEPT}
        cache.save(key, record | {"report": dataclasses.asdict(report)}, cubin)
    return binary


def compile_program(program: Program, *, cache: Cache | Literal["default"] | None = "default") -> tuple[Binary, ...]:
    """Compile every call of a program, all at the same time: see compile_source. The binaries are in the calls' order.

    Where several calls fail it raises the first one's error.
    """
    sources = [call.source for call in program.calls]
    with ThreadPoolExecutor(len(sources)) as pool:
        return tuple(pool.map(lambda source: compile_source(source, cache=cache), sources))


def compiler_version(language: Language = "cuda") -> str:
    """The compiler's name and version, such as "NVRTC 13.5". Raises CompileError when there is none."""
    return triton.version() if language == "triton" else _compiler()[0]


def parse_report(log: str, entry: str) -> Report:
    """Read the resources of kernel ``entry`` from the log of ``ptxas -v``.

    Raises CompileError when the log does not speak of ``entry``: the source has no such kernel, or this compiler
    prints something else.
    """
    used: dict[str, str] = {}
    frames: dict[str, tuple[int, ...]] = {}
    kernel = function = ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '([^']+)'", line):
            kernel = match[1]
        elif match := re.search(r"Function properties for '?([^\s']+)", line):
            function = match[1]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            frames[function] = tuple(int(number) for number in match.groups())
        elif kernel and re.search(r"Used \d+ registers", line):
            used[kernel] = line
    if entry not in used or entry not in frames:
        kernels = ", ".join(sorted(used)) or "none"
        raise CompileError(
            f"the compiler reported no resources for kernel {entry!r} (it reported: {kernels}). "
            f'Declare the kernel as extern "C" __global__ void {entry}(...), or report this compiler\'s log.',
            log,
        )
    # A function that was not inlined may belong to any kernel of the source: better to blame them all.
    shared = [frame for name, frame in frames.items() if name == entry or name not in used]

    def number(pattern: str) -> int:
        match = re.search(pattern, used[entry])
        return int(match[1]) if match else 0

    return Report(
        registers=number(r"Used (\d+) registers"),
        stack=max(number(r"(\d+) bytes cumulative stack size"), frames[entry][0]),
        spill_stores=sum(frame[1] for frame in shared),
        spill_loads=sum(frame[2] for frame in shared),
        static_shared_memory=number(r"(\d+) bytes smem"),
        barriers=number(r"used (\d+) barriers"),
    )


_NOT_KEPT = ("cubin", "cached")


def _restore(record: dict[str, Any], cubin: bytes) -> Binary:
    report = Report(**record.pop("report"))
    return Binary(cubin=cubin, report=report, cached=True, **record)


@functools.cache
def _default_cache(root: Path) -> Cache:
    return Cache(root / "cubin")


def _nvrtc() -> Any:
    """The binding of NVRTC, whether or not its library is there."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise CompileError(f"compiling needs cuda-core, which cannot be imported ({error}). {_INSTALL}") from error
    return nvrtc


@functools.cache
def _compiler() -> tuple[str, str]:
    """The compiler's version, and the size of its library, which tells patch releases of one version apart."""
    nvrtc = _nvrtc()
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        status, major, minor = nvrtc.nvrtcVersion()
        library = load_nvidia_dynamic_lib("nvrtc").abs_path
    except Exception as error:  # the loader raises classes of its own, which differ between versions
        reason = " ".join(str(error).split())
        raise CompileError(f"NVIDIA's run-time compiler NVRTC cannot be loaded ({reason}). {_INSTALL}") from error
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVIDIA's run-time compiler NVRTC does not tell its version ({status.name}). {_INSTALL}")
    return f"NVRTC {major}.{minor}", str(Path(library).stat().st_size) if library else ""


def _run(source: Source, compiler: str) -> tuple[bytes, str]:
    """Call the compiler: the cubin and the log."""
    nvrtc = _nvrtc()
    success = nvrtc.nvrtcResult.NVRTC_SUCCESS

    def call(function: Any, *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if status != success:
            raise CompileError(f"{compiler} failed on kernel {source.entry!r}: {function.__name__} gave {status.name}")
        return results[0] if results else None

    text, name = source.text.encode(), f"{source.entry}.cu".encode()
    options = [*OPTIONS, f"--gpu-architecture={source.arch}", f"--include-path={cuda_headers()}"]
    program = call(nvrtc.nvrtcCreateProgram, text, name, 0, [], [])
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [os.fsencode(option) for option in options])
        buffer = bytes(call(nvrtc.nvrtcGetProgramLogSize, program))
        call(nvrtc.nvrtcGetProgramLog, program, buffer)
        log = buffer.decode(errors="replace").replace("\0", "").strip()
        if status != success:
            raise _failure(source, compiler, status.name, log)
        cubin = bytes(call(nvrtc.nvrtcGetCUBINSize, program))
        call(nvrtc.nvrtcGetCUBIN, program, cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return cubin, log


def _failure(source: Source, compiler: str, status: str, log: str) -> CompileError:
    """Say in words why compiling failed, the first error first."""
    if "--gpu-architecture" in log:
        _, known = _nvrtc().nvrtcGetSupportedArchs()
        return CompileError(
            f"{compiler} does not know the architecture {source.arch!r}; it knows "
            f"{', '.join(f'sm_{number}' for number in known)} (some with the suffix a or f). "
            "Choose another GPU or install a newer nvidia-cuda-nvrtc.",
            log,
        )
    first = _first_error(log) or log or status
    return CompileError(f"{compiler} refused kernel {source.entry!r} for {source.arch}:\n{first}", log)


def _first_error(log: str) -> str:
    """The first error of a log with the lines that belong to it: the source line, the marker, the notes."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if re.match(r".*\(\d+\): (catastrophic )?error\b", line):
            end = next((i for i in range(number, len(lines)) if not lines[i].strip()), len(lines))
            return "\n".join(lines[number:end])
        if re.match(r"(ptxas|nvrtc|nvlink)\b.*\b(error|fatal)\s*:", line):
            return line
    return ""
