"""The examples run as their readers run them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("examples")  # one worker trains, once

ROOT = Path(__file__).parents[2]
BASELINE = 1 / 6
"""The adding problem's mean squared error of always answering 1."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run Python; its output, or a failure that shows it."""
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the example prints."""
    return run(ROOT / "examples" / "own_cell.py", "200", cwd=tmp_path_factory.mktemp("example"))


@pytest.mark.unit
def test_a_cell_of_ones_own_learns_to_add(trained: str) -> None:
    assert "h' = h · t0" in trained
    assert "δh(t-1) = δh' · t0" in trained
    losses = [float(value) for value in re.findall(r"loss (\S+)", trained)]
    assert len(losses) == 4
    assert losses[1] > BASELINE / 2, "at first it answers 1, about"
    assert losses[-1] < BASELINE / 2


@pytest.mark.emulated
def test_the_command_that_the_example_ends_with_tunes_its_cell(trained: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (line,) = re.findall(r"^tilesmith (tune .*)$", trained, flags=re.MULTILINE)
    tuned = run("-m", "kernelgen.commands", *shlex.split(line), "--top", "1", "--seeds", "1", cwd=tmp_path)
    assert tuned.count("against float64") == 2
    (folder,) = re.findall(r"^export TILESMITH_CONFIGS=(.*)$", trained, flags=re.MULTILINE)
    assert {path.name for path in (tmp_path / folder).glob("*.yaml")} == {"fastgrnn.yaml", "fastgrnn_backward.yaml"}
