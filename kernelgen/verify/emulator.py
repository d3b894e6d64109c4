"""Run a generated kernel on the CPU: the same CUDA C++, compiled by g++ against cuda/emulate/.

Every CUDA thread becomes a fiber, memory is checked, and a missing barrier, a race, a deadlock or an access out of
bounds is a report that names the line and the threads. docs/emulator.md says what is checked and what is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import shlex
import tempfile
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen.build.cache import Cache, binary_key
from kernelgen.errors import CompileError, EmulationError
from kernelgen.paths import cache_root
from kernelgen.temporary import temporary_folder
from kernelgen.verify.host_compiler import compile_file, compiler_version, find_compiler, knows

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    from kernelgen.program.launch import Launch
    from kernelgen.program.program import Call, Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Source

    Argument: TypeAlias = "NDArray[Any] | Excerpt | int | np.integer[Any] | None"

FLAGS = (
    "-std=c++20",
    "-O0",
    "-fPIC",
    "-ffp-contract=off",  # a product and a sum round twice unless fma_rn is asked for, on every host alike
    "-fno-strict-aliasing",
    "-fvisibility=hidden",  # kernels loaded into one process must not share the emulator's variables
    "-Wno-unknown-pragmas",  # of a host compiler: #pragma unroll
    "-DTILESMITH_EMULATE",
)
"""What the host compiler is told besides the include path. -O0, because a validation run is shorter than what -O1
takes to compile a kernel, and a variable that nobody initialised is not optimised away; the core is optimised."""

OPTIONAL_FLAGS = ("-ftrivial-auto-var-init=pattern",)
"""Those of them that the compiler knows are added for kernels: a variable that was never initialised starts as a number
that no sound result survives (g++ 12, clang 16, or newer)."""

_CORE_FLAGS = (*FLAGS, "-O2", "-shared")
_CORE = '#include "emulate/core.hpp"\n'

_KERNEL_FLAGS = ("-shared", "-nostdlib", "-Wl,--no-as-needed")
"""Of a kernel, all of whose outer functions are the core's or of the libraries that the core names: linking takes next
to nothing."""

_REPORT_BYTES = 1 << 16

MOST_THREADS = 30_000
"""Threads that run at the same time at most: each has a stack between guards, and Linux gives a process 65,530
mappings."""

_WARP = 32

_libraries: dict[str, ctypes.CDLL] = {}
_cores: dict[str, tuple[ctypes.CDLL, bytes]] = {}
_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A part of an array so large that nothing else of it exists: ``extent`` elements along ``axis``, of which
    ``array`` has those from ``first`` on. An access to the rest is a fault."""

    array: NDArray[Any]
    axis: int
    first: int
    extent: int


class _Argument(ctypes.Structure):
    """TilesmithArgument of cuda/emulate/core.hpp."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("integer", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("extent", ctypes.c_ulonglong),
        ("first", ctypes.c_ulonglong),
        ("window", ctypes.c_ulonglong),
        ("stride", ctypes.c_ulonglong),
    )


class _Launch(ctypes.Structure):
    """TilesmithLaunch of cuda/emulate/core.hpp."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint),
        ("shared_memory", ctypes.c_uint),
        ("together", ctypes.c_uint),
        ("cluster", ctypes.c_uint),
        ("teams", ctypes.POINTER(ctypes.c_uint)),
        ("team_count", ctypes.c_uint),
        ("seed", ctypes.c_ulonglong),
        ("seconds", ctypes.c_double),
    )


_NULL, _INPUT, _OUTPUT, _INTEGER, _MAIL, _COUNTERS, _STORED, _BEGUN = range(8)


def emulate(
    source: Source,
    launch: Launch,
    arguments: Mapping[str, Argument],
    *,
    outputs: Collection[str] = ("states", "last", "gates"),
    begun: bool = False,
    blocks: Collection[int] | None = None,
    seed: int = 0,
    seconds: float = 600.0,
) -> None:
    """Run a kernel on the CPU, fault by fault as strict as a GPU's sanitizers together.

    arguments: one for each name in ``source.arguments``: a C-contiguous NumPy array (ml_dtypes for bfloat16), an int
    (an int32 parameter), None (a null pointer), or an Excerpt of an array. outputs: names of the arrays the kernel
    writes; those that the kernel does not have are ignored. An output starts as NaN in emulated memory, and is copied
    back when the kernel has ended without a fault; after a fault it is as it was. begun: whether outputs start as they
    are instead, since earlier launches have written some of them. Of the workspaces that
    blocks share (program/arguments.py: MAIL, COUNTERS, STORED) those that start POISONED do so whatever they hold.
    blocks: the numbers of those that run, counted along x first; all unless given, and whole clusters.
    seed: draws the order in which blocks and threads run; the same seed gives the same order. seconds: a kernel that
    runs longer is stopped.

    Raises EmulationError with a report of the first fault, or when the launch or an argument makes no sense, or when
    there is no host compiler; CompileError when that compiler refuses the source. One emulation runs at a time in a
    process; the others wait.
    """
    structure = _launch_structure(launch, blocks, seed, seconds)
    structures = _argument_structures(source, arguments, frozenset(outputs), _BEGUN if begun else _OUTPUT)
    text = _complete_text(source, [argument.kind == _INTEGER for argument in structures])
    with _lock:
        library = _library(dataclasses.replace(source, text=text))
        report = ctypes.create_string_buffer(_REPORT_BYTES)
        failed = library.tilesmith_emulate(
            ctypes.byref(structure),
            structures,
            len(structures),
            library.tilesmith_start_kernel,
            report,
            ctypes.c_ulonglong(_REPORT_BYTES),
        )
    if failed:
        message = report.value.decode("utf-8", errors="replace")
        raise EmulationError(f"the emulator stopped {source.entry} (seed {seed}): {message}")


def emulate_program(
    program: Program, shape: Shape, arguments: Mapping[str, Argument], *, seed: int = 0, seconds: float = 600.0
) -> None:
    """Run the calls of a program one after another: see emulate. arguments: one for each name that any call takes."""
    emulate_launches(program.launches(shape.seq), shape, arguments, seed=seed, seconds=seconds)


def emulate_launches(
    launches: Iterable[tuple[Call, int]],
    shape: Shape,
    arguments: Mapping[str, Argument],
    *,
    seed: int = 0,
    seconds: float = 600.0,
) -> None:
    """Run launches of a program's calls, each with its number: see emulate. A library's products are made in float64,
    and rounded."""
    from kernelgen.program.arguments import STEP
    from kernelgen.program.product import ProductCall
    from kernelgen.verify.library import multiply

    for call, number in launches:
        if isinstance(call, ProductCall):
            multiply(call, shape, arguments)
            continue
        stepwise = STEP in call.source.arguments
        given = {name: number if name == STEP else arguments[name] for name in call.source.arguments}
        outputs = [name for name in call.source.writes if given[name] is not None]
        emulate(
            call.source,
            call.launch.at(shape),
            given,
            outputs=outputs,
            begun=stepwise,
            seed=seed + number,
            seconds=seconds,
        )


def _launch_structure(launch: Launch, chosen: Collection[int] | None, seed: int, seconds: float) -> _Launch:
    blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
    if min(launch.grid) < 1:
        raise EmulationError(f"the grid {launch.grid} is empty: every extent must be at least 1")
    if launch.block < 1 or launch.block > 1024 or launch.block % _WARP:
        raise EmulationError(f"a block of {launch.block} threads cannot be emulated: whole warps of 32, at most 1024")
    if launch.shared_memory < 0:
        raise EmulationError(f"a block cannot have {launch.shared_memory} bytes of shared memory")
    if launch.cluster < 1 or launch.grid[0] % launch.cluster:
        raise EmulationError(f"clusters of {launch.cluster} blocks do not divide a grid of {launch.grid[0]} along x")
    together = blocks if launch.cooperative else launch.cluster
    if together * launch.block > MOST_THREADS:
        raise EmulationError(
            f"{together:,} blocks of {launch.block} threads, all at the same time, are {together * launch.block:,} "
            f"threads, and the emulator runs at most {MOST_THREADS:,}: take a smaller batch or head, or a GPU"
        )
    if blocks >= 2**32:
        raise EmulationError(f"a grid of {blocks:,} blocks is too large: at most 2^32 - 1 can be counted")
    teams = range(blocks // together) if chosen is None else sorted({block // together for block in chosen})
    wrong = [] if chosen is None else [block for block in chosen if not 0 <= block < blocks]
    if wrong or (chosen is not None and len({*chosen}) != len(teams) * together):
        raise EmulationError(f"the blocks to run must be of the {blocks:,} of the grid, and whole groups of {together}")
    grid = (ctypes.c_uint * 3)(*launch.grid)
    numbers = (ctypes.c_uint * len(teams))(*teams)
    seed &= 0xFFFF_FFFF_FFFF_FFFF
    return _Launch(
        grid, launch.block, launch.shared_memory, together, launch.cluster, numbers, len(teams), seed, seconds
    )


def _argument_structures(
    source: Source, arguments: Mapping[str, Argument], outputs: frozenset[str], written: int
) -> ctypes.Array[_Argument]:
    import numpy as np

    from kernelgen.program.arguments import COUNTERS, MAIL, STORED  # which takes SymPy

    workspaces = dict.fromkeys(MAIL, _MAIL) | dict.fromkeys(COUNTERS, _COUNTERS) | dict.fromkeys(STORED, _STORED)
    missing = [name for name in source.arguments if name not in arguments]
    extra = [name for name in arguments if name not in source.arguments]
    if missing or extra:
        raise EmulationError(
            f"{source.entry} takes ({', '.join(source.arguments)}); missing: {', '.join(missing) or 'none'}, "
            f"not asked for: {', '.join(extra) or 'none'}"
        )
    structures = (_Argument * len(source.arguments))()
    arrays: dict[str, NDArray[Any]] = {}
    for structure, name in zip(structures, source.arguments, strict=True):
        value = arguments[name]
        structure.name = name.encode()
        if value is None:
            structure.kind = _NULL
        elif isinstance(value, int | np.integer):
            if not -(2**31) <= value < 2**31:
                raise EmulationError(f"argument {name!r} = {value} does not fit in an int32")
            structure.kind = _INTEGER
            structure.integer = int(value)
        elif not isinstance(value, np.ndarray | Excerpt):
            raise EmulationError(f"argument {name!r} must be a NumPy array, an int or None, not {type(value).__name__}")
        else:
            array = arrays[name] = value.array if isinstance(value, Excerpt) else value
            if not array.flags.c_contiguous:
                raise EmulationError(f"argument {name!r} must be C-contiguous; numpy.ascontiguousarray makes it so")
            if name in outputs and not array.flags.writeable:
                raise EmulationError(f"output {name!r} is a read-only array")
            structure.kind = workspaces.get(name, written if name in outputs else _INPUT)
            structure.data = array.ctypes.data
            _set_windows(structure, name, array, value)
    _check_overlap(arrays, outputs)
    return structures


def _set_windows(structure: _Argument, name: str, array: NDArray[Any], value: NDArray[Any] | Excerpt) -> None:
    """Say what exists of an array: see Windows of cuda/emulate/global.hpp."""
    structure.window = structure.stride = structure.extent = array.nbytes
    if isinstance(value, Excerpt):
        count = array.shape[value.axis]
        if not 0 <= value.first <= value.extent - count:
            raise EmulationError(
                f"argument {name!r} cannot be elements {value.first} to {value.first + count} of {value.extent}"
            )
        element = math.prod(array.shape[value.axis + 1 :]) * array.itemsize
        structure.window, structure.first = count * element, value.first * element
        structure.stride = value.extent * element
        structure.extent = math.prod(array.shape[: value.axis]) * structure.stride


def _check_overlap(arrays: Mapping[str, NDArray[Any]], outputs: frozenset[str]) -> None:
    import numpy as np

    for name, array in arrays.items():
        for other, another in arrays.items():
            if name in outputs and name != other and np.may_share_memory(array, another):
                raise EmulationError(f"output {name!r} shares memory with {other!r}; give each array its own")


def _complete_text(source: Source, integers: list[bool]) -> str:
    """The kernel between the emulator's entry and the function that calls the kernel with its arguments."""
    values = ", ".join(f"values[{i}].{'integer' if flag else 'pointer'}()" for i, flag in enumerate(integers))
    return (
        f"#define TILESMITH_ARCHITECTURE {_architecture(source.arch)}\n"
        '#include "emulate/calls.hpp"\n'
        f'#line 1 "{source.entry}.cu"\n'
        f"{source.text}\n"
        '#line 1 "start_kernel"\n'
        'extern "C" __attribute__((visibility("default")))\n'
        "void tilesmith_start_kernel([[maybe_unused]] const tilesmith::emulate::Value* values) "
        f"{{ {source.entry}({values}); }}\n"
    )


def _architecture(arch: str) -> int:
    """Ten times the compute capability of a target such as "sm_90a"; of any other, what has every instruction."""
    digits = "".join(filter(str.isdigit, arch)) if arch.startswith("sm_") else ""
    return int(digits or 90)


def _library(source: Source) -> ctypes.CDLL:
    """Compile and load ``source``, or take it from this process or the cache. The caller holds the lock."""
    command = find_compiler()
    compiler = f"{shlex.join(command)}\n{compiler_version(command)}"
    core = dataclasses.replace(source, text=_CORE, entry="tilesmith_emulate", arch="host")
    core_key = binary_key(core, _CORE_FLAGS, compiler)
    flags = (*FLAGS, *(flag for flag in OPTIONAL_FLAGS if knows(command, flag)), *_KERNEL_FLAGS)
    key = binary_key(source, flags, f"{compiler}\n{core_key}")
    if key not in _libraries:
        try:
            with temporary_folder("emulator") as folder:
                _libraries[key] = _load(folder, command, flags, (core, core_key), (source, key))
        except OSError as error:
            raise EmulationError(
                f"the kernel {source.entry} cannot be compiled for the CPU and loaded in {tempfile.gettempdir()}: "
                f"{error}. Free space there, or set TMPDIR to a folder that may hold programs."
            ) from None
    return _libraries[key]


def _load(
    folder: Path, command: tuple[str, ...], flags: tuple[str, ...], core: tuple[Source, str], kernel: tuple[Source, str]
) -> ctypes.CDLL:
    """Load a kernel, made with ``flags``, and the core that it needs, or take them from the cache. They are loaded from
    ``folder``, which may go afterwards. Each source comes with its key.

    Raises OSError for a folder that cannot be used.
    """
    cache = Cache(cache_root() / "emulator")
    core_file = folder / f"tilesmith-emulator-{core[1]}.so"
    if core[1] in _cores:
        core_file.write_bytes(_cores[core[1]][1])
    else:
        options = (*_CORE_FLAGS, f"-Wl,-soname,{core_file.name}")
        _cores[core[1]] = _made(cache, command, core, core_file, options), core_file.read_bytes()
    # The kernel names the core by its soname and gets the one that is loaded, wherever that came from.
    return _made(cache, command, kernel, folder / "kernel.so", (*flags, str(core_file)))


def _made(
    cache: Cache, command: tuple[str, ...], named: tuple[Source, str], path: Path, options: tuple[str, ...]
) -> ctypes.CDLL:
    """Load a library that the cache has or that is compiled with ``options``, which lies at ``path`` afterwards."""
    source, key = named
    if (entry := cache.load(key)) is not None:
        path.write_bytes(entry[1])
        with contextlib.suppress(OSError):  # made on another kind of machine: make it again
            return ctypes.CDLL(str(path))
        path.unlink()
    _compile(command, source, path, *options)
    cache.save(key, {"entry": source.entry}, path.read_bytes())
    return ctypes.CDLL(str(path))


def _compile(command: tuple[str, ...], source: Source, path: Path, *options: str) -> None:
    """Compile the emulator's core or a kernel to ``path``. Raises CompileError."""
    if source.text == _CORE:
        what, hint = "the emulator itself", "It needs C++20 with <source_location>: g++ 11 or clang 16, or newer."
    else:
        what = f"{source.entry} for the emulator"
        hint = "A kernel may use only C++20 and the functions of cuda/ptx.cuh."
    try:
        compile_file(command, source.text, path, *options)
    except CompileError as error:
        raise CompileError(f"{command[0]} refused {what}: {error}. {hint}", error.log) from None
