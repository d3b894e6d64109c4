"""tilesmith doctor: what it finds here, and what it says of machines on which something is missing or broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command_line import ROOT, fine, run

import constrint.core
import kernelgen
from kernelgen.commands import machine as doctor
from kernelgen.commands import main
from kernelgen.commands.machine import Check, examine
from kernelgen.device.worker import JobFailed

pytestmark = pytest.mark.unit

NO_GPU_LOSS = "kernels cannot be measured"


def named(name: str) -> Check:
    """The one check of a name."""
    (check,) = [check for check in examine() if check.name == name]
    return check


class Answers:
    """In the place of a worker: what the driver and NVRTC answer. An error is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"nvrtc": "NVRTC 13.0", "gpus": JobFailed("there is no NVIDIA driver", "error"), **answers}

    def __call__(self, runner: str) -> Answers:
        assert runner == "kernelgen.commands.machine:probe"
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def run(self, job: str, seconds: float) -> Any:
        assert 0 < seconds < 60
        if isinstance(answer := self.answers[job], Exception):
            raise answer
        return answer


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the driver and NVRTC answer what is given, and no process start."""
    monkeypatch.setattr(doctor, "Worker", Answers())
    return lambda **answers: monkeypatch.setattr(doctor, "Worker", Answers(**answers))


def test_everything_has_a_mark_and_the_required_is_there() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    marked = [re.match(r"(ok|absent|warning) +(\S+)", line) for line in lines]
    assert all(marked), lines
    names = [match[2] for match in marked if match]
    expected = ["Python", "tilesmith", "packages", "constrint", "g++", "cache", "store", "PyTorch", "CuPy", "Triton"]
    expected += ["Vega", "Ray", "NVML"]
    assert names[: len(expected) + 1] == [*expected, "NVRTC"]
    assert names[14:]  # a GPU, or that there is none
    found = json.loads(fine("doctor --json"))
    assert [check["name"].split()[0] for check in found] == names
    assert all(set(check) == {"name", "status", "found", "advice"} for check in found)
    assert all((check["status"] == "ok") == (check["advice"] == "") for check in found)
    assert next(check for check in found if check["name"] == "NVRTC")["found"].startswith("NVRTC 13")
    assert str(ROOT / "kernelgen") in next(check for check in found if check["name"] == "tilesmith")["found"]


def test_it_says_where_tilesmith_is() -> None:
    (found,) = [check.found for check in examine() if check.name == "tilesmith"]
    assert found.endswith(str(Path(kernelgen.__file__).parent))


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "cupy", "triton", "numpy", "sympy", "ortools", "pydantic", "yaml", "rich", "cuda.core")
    code = (
        "import sys; from kernelgen.commands import main; main(['doctor'], standalone_mode=False); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_required_packages_are_those_of_the_project() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[><=]", text)[0] for text in listed}
    assert names == {*doctor.REQUIRED, "nvidia-cuda-nvrtc"}


@pytest.mark.usefixtures("answer")
def test_a_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor._importable
    monkeypatch.setattr(doctor, "_importable", lambda module: module not in ("sympy", "yaml") and there(module))
    result = run("doctor")
    assert result.exit_code == 2
    assert re.search(r"^broken +packages +not installed: sympy, pyyaml$", result.stdout, re.MULTILINE)
    assert "pip install sympy pyyaml" in result.stdout
    assert "numpy" in result.stdout
    assert doctor._importable("kernelgen.none.such") is False


def test_without_a_host_compiler_it_says_what_is_lost(
    answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    check = named("g++")
    assert check.status == "absent"
    assert "no g++" in check.found
    assert check.advice == "the emulator cannot run, so kernels cannot be validated without a GPU"
    assert run("doctor").exit_code == 0
    old = tmp_path / "c++"
    old.write_text("#!/bin/sh\necho 'gcc version 9.4.0 (Ubuntu)' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CXX", str(old))
    check = named("g++")
    assert check.status == "warning"
    assert "9.4.0" in check.found
    assert "gcc 11 or newer" in check.advice


def test_nvrtc_that_fails_is_broken(answer: Callable[..., None]) -> None:
    for reason, words in (("error", "cannot be loaded"), ("crash", "was killed by SIGSEGV"), ("timeout", "20 s")):
        answer(nvrtc=JobFailed(words, reason))
        check = named("NVRTC")
        assert (check.status, check.found, check.advice) == ("broken", words, "no kernel can be compiled")
        assert run("doctor").exit_code == 2


@pytest.mark.parametrize(("reason", "status"), [("error", "absent"), ("crash", "warning"), ("timeout", "warning")])
def test_no_gpu_and_a_driver_that_fails(answer: Callable[..., None], reason: str, status: str) -> None:
    answer(gpus=JobFailed("is as it is", reason))
    check = named("GPU")
    assert check.status == status
    assert "is as it is" in check.found
    assert NO_GPU_LOSS in check.advice
    assert run("doctor").exit_code == 0


def test_every_gpu_is_listed_with_the_driver(answer: Callable[..., None]) -> None:
    answer(gpus=((13, 1), [(True, "NVIDIA H200 (sm_90), 141 GiB, profile h200"), (False, "Old (sm_52): no profile")]))
    assert named("driver").status == "ok"
    assert named("driver").found.endswith("CUDA 13.1")
    assert named("GPU 0") == Check("GPU 0", "ok", "NVIDIA H200 (sm_90), 141 GiB, profile h200")
    assert named("GPU 1").status == "warning"
    answer(gpus=((12, 8), []))
    assert named("driver").status == "warning"
    assert "CUDA 13" in named("driver").advice


@pytest.mark.usefixtures("answer")
def test_the_cache_and_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    monkeypatch.setenv("TILESMITH_CACHE", str(root))
    assert named("cache") == Check("cache", "ok", f"{root}, not there yet; writable")
    assert named("store") == Check("store", "ok", f"{root / 'trials.sqlite'}, not there yet")
    assert not root.exists()
    (root / "cubin" / "ab").mkdir(parents=True)
    (root / "cubin" / "ab" / "abc").write_bytes(bytes(3 * 1024**2))
    (root / "trials.sqlite").write_bytes(b"not a database" * 100)
    assert "cubin 3 MiB in 1 file, emulator 0 bytes in 0 files; writable" in named("cache").found
    check = named("store")
    assert check.status == "warning"
    assert "Move it away" in check.advice
    monkeypatch.setenv("TILESMITH_CACHE", "/dev/null/below")
    check = named("cache")
    assert check.status == "warning"
    assert "cannot be written" in check.found
    assert "TILESMITH_CACHE" in check.advice
    assert run("doctor").exit_code == 0


@pytest.fixture
def coreless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the C++ core had not been built, for modules that are imported meanwhile too."""
    monkeypatch.setitem(sys.modules, "constrint._core_native", None)
    constrint.core.load_core.cache_clear()
    yield
    constrint.core.load_core.cache_clear()


@pytest.mark.usefixtures("answer", "coreless")
def test_without_the_core_everybody_says_so(tmp_path: Path) -> None:
    assert fine("--version").endswith("; constrint runs the Python engine, without the C++ core\n")
    check = named("constrint")
    assert (check.status, check.found) == ("warning", "the Python engine, without the C++ core")
    assert "large problems take longer" in check.advice
    problem = tmp_path / "problem.txt"
    problem.write_text("A == [1, 2];\n")
    result = run("solve", problem)
    assert result.exit_code == 0
    assert "the C++ core is missing" in result.stderr
    assert "C++" not in run("solve", problem, "--engine", "python").stderr


@pytest.mark.usefixtures("answer")
def test_a_check_that_fails_is_told_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Check]:
        raise RuntimeError("no home")

    for name in ("_python", "_tilesmith", "_packages", "_constrint", "_host_compiler", "_cache", "_store"):
        monkeypatch.setattr(doctor, name, fail)
    result = run("doctor")
    assert result.exit_code == 2
    assert result.stdout.count("cannot be looked at: RuntimeError: no home") == 7
    assert "ok       NVRTC" in result.stdout


@pytest.mark.parametrize(("said", "coloured"), [("", True), ("1", False)])
def test_no_color_has_no_colours(monkeypatch: pytest.MonkeyPatch, said: str, coloured: bool) -> None:
    """color=True: as on a terminal."""
    monkeypatch.setenv("NO_COLOR", said)
    result = CliRunner().invoke(main, ["doctor"], color=True)
    assert ("\x1b[" in result.output) == coloured
