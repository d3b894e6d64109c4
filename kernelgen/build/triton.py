"""Triton to a binary for a named GPU, and what the compiler says it needs. No GPU and no driver are needed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kernelgen.errors import CompileError
from kernelgen.temporary import temporary_folder

if TYPE_CHECKING:
    from kernelgen.program.source import Source

INSTALL = "Install it with: pip install 'tilesmith[triton]'"

SCRATCH_ARGUMENTS = 2
"""Pointers that Triton adds behind a kernel's own arguments, for memory that these kernels do not use: null."""

NO_WARP_GROUPS = "DISABLE_MMA_V3"
"""Triton's switch: no matrix instructions of groups of four warps (wgmma)."""

_TYPES: Mapping[str, str] = {"batch": "i32", "seq": "i32", "num_partials": "i32", "step": "i32"}
_FLOATS = ("d_r_partial", "d_b_partial", "d_r_parts", "d_b_parts", "carried", "d_carried")
_ELEMENT = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
_numbers = itertools.count()
_lock = threading.Lock()  # Triton's compiler is not said to be safe to call from several threads


def installed() -> bool:
    """Whether Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def version() -> str:
    """Triton's name and version, such as "Triton 3.6.0". Raises CompileError where there is none."""
    return f"Triton {_triton().__version__}"


def target(arch: str) -> tuple[str, int | str, int]:
    """What Triton calls an architecture: the backend, its target, and the threads of a warp."""
    if arch.startswith("gfx"):
        return "hip", arch, 64
    return "cuda", int(re.sub(r"\D", "", arch)), 32


def argument_types(source: Source) -> dict[str, str]:
    """Triton's type of each argument of a source, which states the dtype of the shape's elements."""
    stated = re.search(r"^DTYPE = '(\w+)'$", source.text, re.MULTILINE)
    if stated is None or stated[1] not in _ELEMENT:
        raise CompileError(f"the source of {source.entry} does not say which dtype it is for, as generated ones do")
    element = _ELEMENT[stated[1]]
    return {name: _TYPES.get(name, "*fp32" if name in _FLOATS else element) for name in source.arguments}


def run(source: Source) -> tuple[bytes, str]:
    """Compile a source: its binary, and a log in the form of ptxas (compile.parse_report).

    Raises CompileError where Triton is missing, refuses it, or gives it more shared memory than the source states.
    """
    triton = _triton()
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise CompileError("TRITON_INTERPRET=1 is set, with which Triton compiles nothing; unset it")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    with _lock, loaded(source.text) as module, _instructions(warp_groups=getattr(module, "WARP_GROUPS", True)):
        kernel = getattr(module, source.entry)
        constants = dict(module.CONSTANTS)
        types = argument_types(source) | dict.fromkeys(constants, "constexpr")
        names = list(kernel.arg_names)
        pointers = [name for name in source.arguments if types[name].startswith("*")]
        code = ASTSource(
            kernel,
            signature=types,
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
        )
        options = {"num_warps": module.NUM_WARPS, "num_stages": module.NUM_STAGES, "enable_fp_fusion": True}
        backend = target(source.arch)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = triton.compile(code, target=GPUTarget(*backend), options=options)
        except Exception as error:  # the classes differ between versions and between stages of the compiler
            words = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            what = " ... ".join(dict.fromkeys((words[0], words[-1])))
            raise CompileError(f"{version()} refused {source.entry!r} for {source.arch}: {what}", str(error)) from error
        stated = int(module.SHARED_MEMORY)
    shared = int(made.metadata.shared)
    if shared > stated:
        raise CompileError(
            f"{source.entry} takes {shared:,} bytes of shared memory with {version()}, and its schedule predicts at "
            f"most {stated:,}"
        )
    if getattr(made.metadata, "global_scratch_size", 0):
        raise CompileError(f"{source.entry} takes global scratch memory with {version()}, which no launch here gives")
    if backend[0] == "hip":
        return bytes(made.asm["hsaco"]), _amd_log(source.entry, str(made.asm["amdgcn"]), shared)
    return bytes(made.asm["cubin"]), _ptxas_log(str(made.asm["ptx"]), source.arch)


@contextlib.contextmanager
def _instructions(*, warp_groups: bool) -> Iterator[None]:
    """Have Triton multiply with single warps alone unless ``warp_groups``: its switch for that is the environment."""
    before = os.environ.get(NO_WARP_GROUPS)
    if not warp_groups:
        os.environ[NO_WARP_GROUPS] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(NO_WARP_GROUPS, None)
        else:
            os.environ[NO_WARP_GROUPS] = before


@contextlib.contextmanager
def loaded(text: str) -> Iterator[ModuleType]:
    """A source as a module, from a file, since Triton reads a function's text from where it was defined."""
    with temporary_folder("triton") as folder:
        file = Path(folder) / "kernel.py"
        file.write_text(text, encoding="utf-8")
        name = f"tilesmith_kernel_{next(_numbers)}"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            sys.modules.pop(name, None)


def _triton() -> Any:
    try:
        import triton
    except ImportError as error:
        raise CompileError(
            f"compiling a Triton kernel needs Triton, which is not installed ({error}). {INSTALL}"
        ) from None
    return triton


def _ptxas_log(ptx: str, arch: str) -> str:
    """What the assembler that comes with Triton says of a PTX text."""
    import triton.backends.nvidia as backend

    folder = Path(str(backend.__file__ or next(iter(backend.__path__)))).parent / "bin"
    tried = ""
    for tool in sorted(folder.glob("ptxas*"), key=lambda path: path.name, reverse=True):
        with temporary_folder("ptxas") as place:
            (place / "kernel.ptx").write_text(ptx, encoding="utf-8")
            command = [str(tool), "-v", f"--gpu-name={_sm(ptx, arch)}", str(place / "kernel.ptx"), "-o", os.devnull]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stderr
        tried = done.stderr
    raise CompileError(f"no ptxas of Triton's ({folder}) takes what its compiler made: {tried.strip()[:200]}", tried)


def _sm(ptx: str, arch: str) -> str:
    match = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    return match[1] if match else arch


def _amd_log(entry: str, assembly: str, shared: int) -> str:
    """What the assembly's metadata says, as ptxas would."""

    def number(name: str) -> int:
        match = re.search(rf"\.{name}:\s+(\d+)", assembly)
        return int(match[1]) if match else 0

    spills = 4 * (number("vgpr_spill_count") + number("sgpr_spill_count"))
    registers = number("vgpr_count") + number("agpr_count")
    return (
        f"Compiling entry function '{entry}'\nFunction properties for {entry}\n"
        f"{number('private_segment_fixed_size')} bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads\n"
        f"Used {registers} registers, {shared} bytes dynamic\n"
    )
