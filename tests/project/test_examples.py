"""The examples run as their readers run them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASELINE = 1 / 6
"""The adding problem's mean squared error of always answering 1."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run Python; its output, or a failure that shows it."""
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.unit
def test_a_cell_of_ones_own_learns_to_add(tmp_path: Path) -> None:
    text = run(ROOT / "examples" / "own_cell.py", "250", cwd=tmp_path)
    assert "h' = h · t0" in text
    assert "δh(t-1) = δh' · t0" in text
    losses = [float(value) for value in re.findall(r"loss (\S+)", text)]
    assert len(losses) == 5
    assert losses[1] > BASELINE / 2, "at first it answers 1, about"
    assert losses[-1] < BASELINE / 4


@pytest.mark.emulated
def test_the_command_that_the_example_ends_with_tunes_its_cell(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = run("examples/own_cell.py", "1", cwd=tmp_path)
    (line,) = re.findall(r"^tilesmith (tune .*)$", text, flags=re.MULTILINE)
    tuned = run("-m", "kernelgen.commands", *shlex.split(line), "--top", "1", "--seeds", "1", cwd=tmp_path)
    assert tuned.count("against float64") == 2
    (folder,) = re.findall(r"^export TILESMITH_CONFIGS=(.*)$", text, flags=re.MULTILINE)
    assert {path.name for path in (tmp_path / folder).glob("*.yaml")} == {"fastgrnn.yaml", "fastgrnn_backward.yaml"}
