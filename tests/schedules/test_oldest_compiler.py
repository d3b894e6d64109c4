"""Kernels of every schedule through the oldest NVRTC that is supported, which knows less C++ than the newest."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kernelgen.schedules import schedule_names

pytestmark = pytest.mark.compiled

PACKAGE = "nvidia-cuda-nvrtc"


def oldest() -> str:
    """The version that pyproject.toml asks for at least."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (version,) = (each.removeprefix(f"{PACKAGE}>=") for each in project["dependencies"] if each.startswith(PACKAGE))
    return version


FOLDER = Path(sys.prefix) / f"nvrtc-{oldest()}"
"""Where `make test` puts it, since an environment has but one."""


@pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason=f"no NVRTC {oldest()}: make test, or pip install --no-deps --target {FOLDER} {PACKAGE}=={oldest()}",
)
def test_a_program_of_every_schedule_compiles() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oldest_compiler", FOLDER], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"NVRTC {'.'.join(oldest().split('.')[:2])}",
        *schedule_names("forward"),
        *schedule_names("backward"),
    ]
