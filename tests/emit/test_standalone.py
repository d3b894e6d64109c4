"""Kernels as one file: compiled without tilesmith's headers, by NVRTC and by nvcc, into the same machine code."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from command_line import fine, refused, run

from kernelgen.build import compile as compiling
from kernelgen.build.compile import Binary, compile_source
from kernelgen.cells import load_cell
from kernelgen.emit.standalone import MARK, standalone
from kernelgen.errors import CompileError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.records.config_reading import load_config, read_program
from kernelgen.schedules import get
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.tuning.plan import plan

pytestmark = pytest.mark.compiled


def kernel(name: str, gpu: str, direction: Direction, shape: Shape) -> Program:
    """The model's best program."""
    cell, profile = load_cell(name), load_profile(gpu)
    tiling = plan(cell, shape, profile, top=1, direction=direction)[0]
    return get(tiling.schedule).program(cell, shape, profile, tiling)


SOURCES = ("forward sm_90a", "forward sm_80", "backward sm_90a", "backward sm_89", "dR and db")
"""Every template of cuda/, on targets with and without matrix stores and clusters."""


@functools.cache
def program_of(which: str) -> Program:
    """One of SOURCES."""
    saved, recomputed = Shape(16, 64, 2, 32, save="gates"), Shape(16, 64, 2, 32, save="states", recompute=True)
    match which:
        case "forward sm_90a":
            return kernel("lstm", "h200", "forward", saved)
        case "forward sm_80":
            return kernel("elman", "a100-80gb", "forward", Shape(4, 64, 1, 33, "float16"))
        case "backward sm_90a":
            return kernel("gru", "h200", "backward", saved)
        case "backward sm_89":
            return kernel("elman", "l4", "backward", recomputed)
    return Program("backward", *ParameterGradients(load_cell("gru"), saved, load_profile("h200")).calls())


@functools.cache
def ordinary(which: str) -> Binary:
    """One of SOURCES, compiled with the headers of cuda/."""
    return compile_source(program_of(which).main.source, cache=None)


def machine_code(cubin: bytes) -> dict[str, bytes]:
    """The sections of a cubin (an ELF file of 64 bits) that hold instructions, by name."""
    offset, size, count, names_at = struct.unpack_from("<Q", cubin, 40) + struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + i * size) for i in range(count)]
    names = headers[names_at][4]
    code = {}
    for name, _, _, _, start, length in headers:
        text = cubin[names + name : cubin.index(b"\0", names + name)].decode()
        if text.startswith(".text."):
            code[text] = cubin[start : start + length]
    return code


@pytest.mark.parametrize("which", SOURCES)
def test_one_file_gives_the_same_machine_code(which: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = program_of(which)
    source = program.main.source
    alone = dataclasses.replace(source, text=standalone(program))
    expected = ordinary(which)
    monkeypatch.setattr(compiling, "cuda_headers", lambda: tmp_path)
    with pytest.raises(CompileError, match=r"math\.cuh"):
        compile_source(source, cache=None)
    inlined = compile_source(alone, cache=None)
    code = machine_code(inlined.cubin)
    if len(program.calls) == 1:
        assert inlined.report == expected.report
        assert code == machine_code(expected.cubin)
    assert inlined.report.registers == pytest.approx(expected.report.registers, rel=0.05)
    assert inlined.report.local_memory == 0
    assert code.keys() == {f".text.{call.source.entry}" for call in program.calls}
    assert len(code[f".text.{source.entry}"]) > 1000


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc in PATH")
@pytest.mark.parametrize("which", ["forward sm_90a", "backward sm_90a", "dR and db"])
def test_nvcc_compiles_it_as_its_first_comment_says(which: str, tmp_path: Path) -> None:
    program = program_of(which)
    source = program.main.source
    (tmp_path / "FILE.cu").write_text(standalone(program))
    (command,) = re.findall(r"^// +(nvcc .*)$", standalone(program), re.MULTILINE)
    done = subprocess.run(
        [*command.split(), "-Xptxas", "-v", "-Werror", "all-warnings"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f".text.{source.entry}" in machine_code((tmp_path / f"{source.entry}.cubin").read_bytes())
    report = compiling.parse_report(done.stderr, source.entry)
    assert report.registers == pytest.approx(ordinary(which).report.registers, rel=0.1)  # of another compiler
    assert dataclasses.replace(report, registers=0) == dataclasses.replace(ordinary(which).report, registers=0)


@pytest.mark.parametrize("which", SOURCES)
def test_every_header_is_there_once_and_nothing_of_the_emulator_or_of_profiles(which: str) -> None:
    text = standalone(program_of(which))
    begun, ended = (re.findall(rf"^// ==== {what}(\S+\.cuh) ====$", text, re.MULTILINE) for what in ("", "end of "))
    assert begun[:2] == ["math.cuh", "ptx.cuh"]
    assert sorted(begun) == sorted(ended) == sorted(set(begun))
    for word in ("#include", "#pragma once", "#ifdef", "#else", "#endif", "emulate::", "stamps.mark"):
        assert word not in text
    assert text.startswith(MARK)


def test_a_header_that_is_not_there_is_named() -> None:
    call = KernelCall(Source('#include "gone.cuh"\n', "mine", "sm_80", ()), LaunchRule(("1", "1", "1"), 32, 0))
    with pytest.raises(CompileError, match=r"mine includes 'gone\.cuh'.*tune it again"):
        standalone(Program("forward", call))


def test_show_prints_what_nvrtc_compiles_to_the_tuned_binary(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program, shape = read_program(tuned), load_config(tuned).shape
    source, launch = program.main.source, program.main.launch.at(shape)
    result = run("show --standalone", tuned)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == standalone(program, shape)
    assert f"grid ({', '.join(map(str, launch.grid))}), {launch.block} threads" in result.stdout
    monkeypatch.setattr(compiling, "cuda_headers", lambda: tmp_path)
    binary = compile_source(dataclasses.replace(source, text=result.stdout), cache=None)
    assert machine_code(binary.cubin) == machine_code(tuned.with_suffix(".cubin").read_bytes())


def test_memory_that_must_start_poisoned_is_named() -> None:
    cell, shape, profile = load_cell("elman"), Shape(5, 4, 2, 32), load_profile("h200")
    tiling = plan(cell, shape, profile, top=1, schedules=["grid"])[0]
    program = get("grid").program(cell, shape, profile, tiling)
    text = standalone(program, shape)
    assert "a cooperative launch" in text
    assert f"//   W of the workspaces: {program.axes['W']}, here {program.extents(shape)['W']}" in text
    assert f"//   mail: {program.poisoned(shape)['mail']} bytes, which must all be 0xFF before every launch" in text


def test_show_writes_it_but_over_no_other_file(tuned: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "alone.cu"
    for _ in range(2):  # its own may be replaced
        assert fine("show --standalone", tuned, "-o", output) == ""
        assert output.read_text() == fine("show --standalone", tuned)
    assert "no standalone kernel" in refused("show --standalone", tuned, "-o", tuned.with_suffix(".cu"))
    assert load_config(tuned)
    assert "not named so" in refused("show --standalone", tuned, "-o", tmp_path / "alone.txt")
    assert "cannot write" in refused("show --standalone", tuned, "-o", output / "below.cu")
    assert "--standalone" in refused("show", tuned, "-o", tmp_path / "other.cu")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["alone.cu"]


def test_show_says_when_the_headers_have_changed(tuned: Path, tmp_path: Path) -> None:
    copy = tmp_path / tuned.name
    for suffix in (".yaml", ".cu", ".cubin"):
        shutil.copy(tuned.with_suffix(suffix), copy.with_suffix(suffix))
    text = copy.read_text()
    copy.write_text(text.replace(load_config(copy).source_hash, "ab" * 32))
    result = run("show --standalone", copy)
    assert result.exit_code == 0
    assert "headers have changed" in result.stderr
