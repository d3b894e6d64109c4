"""Compiling small hand-written kernels with NVRTC, without a GPU: reports, errors, the way to the cache."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kernelgen.build import compile as compiling
from kernelgen.build.cache import Cache
from kernelgen.build.compile import Report, compile_source, compiler_version, parse_report
from kernelgen.errors import CompileError
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.source import Source

pytestmark = pytest.mark.compiled

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("sm_80", "sm_90a", "sm_120")

REVERSE = """#include "ptx.cuh"
extern "C" __global__ void reverse(float* a) {
    __shared__ float tile[32];
    tile[threadIdx.x] = a[threadIdx.x];
    tilesmith::sync_block();
    a[threadIdx.x] = tile[31 - threadIdx.x];
}
"""

# 96 live values and 1024 threads: 64 registers a thread cannot hold them.
SPILLING = """extern "C" __global__ void __launch_bounds__(1024) reverse(float* a) {
    float v[96];
    for (int i = 0; i < 96; i++) v[i] = a[threadIdx.x * i];
    for (int j = 0; j < 10; j++) {
        __syncthreads();
        for (int i = 0; i < 96; i++) v[i] = v[i] * v[(i + 7) % 96] + a[j];
    }
    for (int i = 0; i < 96; i++) a[i + threadIdx.x] = v[i];
}
"""


def refusal(text: str, arch: str = "sm_90a") -> CompileError:
    with pytest.raises(CompileError) as caught:
        compile_source(Source(text, "reverse", arch), cache=None)
    return caught.value


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_kernel_becomes_a_cubin_with_its_report(arch: str) -> None:
    binary = compile_source(Source(REVERSE, "reverse", arch), cache=None)
    assert binary.cubin.startswith(b"\x7fELF")
    assert b"reverse" in binary.cubin
    assert (binary.entry, binary.arch, binary.cached) == ("reverse", arch, False)
    assert binary.compiler == compiler_version()
    assert binary.compiler.startswith("NVRTC ")
    assert binary.seconds > 0
    report = binary.report
    assert 4 <= report.registers <= 32
    assert report.static_shared_memory == 32 * 4
    assert report.barriers == 1
    assert (report.stack, report.spills) == (0, 0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_spills_are_reported(arch: str) -> None:
    report = compile_source(Source(SPILLING, "reverse", arch), cache=None).report
    assert report.registers <= 64
    assert report.spill_stores > 0
    assert report.spill_loads > 0
    assert report.stack >= report.spill_stores // 8
    assert report.spills == report.spill_stores + report.spill_loads


def test_the_report_is_that_of_the_entry() -> None:
    other = REVERSE.replace("reverse", "other").replace("tile[32]", "tile[64]").replace('#include "ptx.cuh"', "")
    text = REVERSE + other
    sizes = [
        compile_source(Source(text, e, "sm_80"), cache=None).report.static_shared_memory for e in ("reverse", "other")
    ]
    assert sizes == [128, 256]


def test_dynamic_shared_memory_is_not_static() -> None:
    text = """#include "ptx.cuh"
extern "C" __global__ void reverse(float* a) { a[0] = tilesmith::load_shared_float4(tilesmith::shared_memory()).x; }
"""
    assert compile_source(Source(text, "reverse", "sm_90a"), cache=None).report.static_shared_memory == 0


def test_an_error_shows_its_line_first_and_keeps_the_log() -> None:
    error = refusal(REVERSE.replace("tile[31", "tyle[31").replace("= a[", "= aa["))
    message = str(error)
    assert "reverse.cu(4): error" in message
    assert '"aa" is undefined' in message
    assert "tile[threadIdx.x] = aa[threadIdx.x];" in message
    assert "reverse.cu(6)" not in message
    assert "reverse.cu(6): error" in error.log


def test_a_static_assertion_speaks() -> None:
    error = refusal('template <int N> struct A { static_assert(N % 8 == 0, "N must be a multiple of 8"); };\nA<3> a;')
    assert "N must be a multiple of 8" in str(error)


def test_the_assembler_s_errors_come_through() -> None:
    assert "too much shared data" in str(refusal(REVERSE.replace("tile[32]", "tile[100000]")))
    assert "frobnicate" in str(refusal('extern "C" __global__ void reverse() { asm volatile("frobnicate;"); }'))


def test_a_missing_header_is_named() -> None:
    assert "absent.cuh" in str(refusal('#include "absent.cuh"\n' + REVERSE))


def test_an_unknown_architecture_lists_the_known() -> None:
    message = str(refusal(REVERSE, "sm_999"))
    assert "sm_999" in message
    assert "sm_90" in message


def test_a_source_without_the_entry_is_refused() -> None:
    message = str(refusal(REVERSE.replace("void reverse", "void turn")))
    assert "'reverse'" in message
    assert "turn" in message


def test_headers_come_from_cuda_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptx.cuh").write_text("#error the header of the current folder was taken\n")
    monkeypatch.chdir(tmp_path)
    compile_source(Source(REVERSE, "reverse", "sm_80"), cache=None)


def test_the_second_time_it_comes_from_the_cache(tmp_path: Path) -> None:
    source = Source(REVERSE, "reverse", "sm_90a")
    first = compile_source(source, cache=Cache(tmp_path))
    second = compile_source(source, cache=Cache(tmp_path))
    assert (first.cached, second.cached) == (False, True)
    assert second.cubin == first.cubin
    assert second.report == first.report
    assert (second.log, second.seconds, second.source_hash) == (first.log, first.seconds, first.source_hash)
    other = compile_source(Source(REVERSE, "reverse", "sm_80"), cache=Cache(tmp_path))
    assert not other.cached
    assert other.key != first.key


def test_the_default_cache_is_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    source = Source(REVERSE, "reverse", "sm_90a")
    assert not compile_source(source).cached
    assert compile_source(source).cached
    assert [file for file in (tmp_path / "cubin").rglob("*") if file.is_file()]


def test_a_damaged_entry_is_compiled_again_and_replaced(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    source = Source(REVERSE, "reverse", "sm_90a")
    first = compile_source(source, cache=cache)
    entry = cache.path(first.key)
    entry.write_bytes(entry.read_bytes()[:-100] + bytes(100))
    again = compile_source(source, cache=cache)
    assert not again.cached
    assert again.cubin == first.cubin
    assert compile_source(source, cache=cache).cached


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(CompileError):
            compile_source(Source("nonsense", "reverse", "sm_80"), cache=Cache(tmp_path))
    assert not list(tmp_path.iterdir())


def test_threads_compile_at_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    sources = [Source(REVERSE.replace("32]", f"{32 + i % 4}]"), "reverse", "sm_80") for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        binaries = list(pool.map(lambda source: compile_source(source, cache=cache), sources))
    assert [binary.report.static_shared_memory for binary in binaries] == [4 * (32 + i % 4) for i in range(8)]


def test_without_the_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(compiling, "_compiler", compiling._compiler.__wrapped__)
    with pytest.raises(CompileError, match="pip install"):
        compile_source(Source(REVERSE, "reverse", "sm_80"), cache=None)


def test_why_the_compiler_cannot_be_loaded_is_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise RuntimeError(f"no {name}.so:\nno such file\n")

    monkeypatch.setattr("cuda.pathfinder.load_nvidia_dynamic_lib", missing)
    monkeypatch.setattr(compiling, "_compiler", compiling._compiler.__wrapped__)
    with pytest.raises(CompileError, match=r"cannot be loaded \(no nvrtc\.so: no such file\)\. Install it"):
        compile_source(Source(REVERSE, "reverse", "sm_80"), cache=None)


def test_importing_it_loads_no_compiler() -> None:
    heavy = ("cuda", "numpy", "pydantic")
    code = f"import sys, kernelgen.build.compile; print([m for m in sys.modules if m.startswith({heavy})])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# What ptxas prints for a kernel with a function that was not inlined; the function's lines come after the kernel's.
LOG = """k.cu(3): warning #177-D: variable "unused" was declared but never referenced

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_90a'
ptxas info    : Function properties for second
ptxas         .     280 bytes stack frame, 552 bytes spill stores, 576 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 280 bytes cumulative stack size
ptxas info    : Compiling entry function 'first' for 'sm_90a'
ptxas info    : Function properties for first
ptxas         .     256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 80 registers, used 3 barriers, 264 bytes cumulative stack size, 96 bytes smem, 360 bytes cmem[0]
ptxas info    : Function properties for _Z1ffPf
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
"""


def test_the_log_of_several_functions_is_read() -> None:
    assert parse_report(LOG, "first") == Report(80, 264, 4, 12, 96, 3)
    assert parse_report(LOG, "second") == Report(64, 280, 556, 588, 0, 1)
    with pytest.raises(CompileError, match="first, second"):
        parse_report(LOG, "third")
    with pytest.raises(CompileError, match="none"):
        parse_report("", "first")


def test_the_calls_of_a_program_compile_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=60)

    def pretend(source: Source, **_: Any) -> None:
        together.wait()
        raise CompileError(f"{source.entry} is refused")

    monkeypatch.setattr(compiling, "compile_source", pretend)
    calls = [KernelCall(Source("", entry, "sm_90a"), LaunchRule(("1", "1", "1"), 32, 0)) for entry in "abc"]
    with pytest.raises(CompileError, match="a is refused"):
        compiling.compile_program(Program("forward", calls[0], tuple(calls[1:])))
