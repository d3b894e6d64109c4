"""Every command and every Python example of the README runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from pages import blocks, commands

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tour_runs_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tour = [words for words in commands(README) if words[0] == "tilesmith"]
    assert len(tour) >= 6
    for words in tour:
        less = ["--top", "1"] if words[1] == "tune" else []  # the more are compiled in vain, the longer it takes
        done = run(" ".join(words[1:]), *less)
        assert done.exit_code == 0, f"{' '.join(words)}:\n{done.output}"
        assert done.stdout.strip(), f"{' '.join(words)} printed nothing"


def test_the_make_targets_exist() -> None:
    targets = [words[1] for words in commands(README) if words[0] == "make"]
    assert targets == ["tune", "test"]
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_known() -> None:
    assert {words[0] for words in commands(README)} <= {"make", "tilesmith", "pip"}


def test_what_is_to_be_installed_is_there() -> None:
    """pip works out what it would install, but does not; an extra that is not there would be a warning."""
    asked = [words for words in commands(README) if words[0] == "pip"]
    assert [words[1] for words in asked] == ["install"] * 3
    for words in asked:
        done = subprocess.run(
            [sys.executable, "-m", *words, "--dry-run", "--no-deps", "--no-build-isolation"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Would install tilesmith" in done.stdout
        assert "does not provide the extra" not in done.stdout + done.stderr
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = "".join(page.read_text() for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    assert {*re.findall(r"pip install \"?\.\[(\w+)\]", pages)} <= extras.keys()
    assert "pip install tilesmith" not in pages, "it is on no registry"


def test_the_solver_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block.text for block in blocks(README, "python") if "constrint" in block.text]
    exec(compile(example, "README.md", "exec"), {})
    expected = re.search(r"print\(.*\)\s+# (.*)", example)
    assert expected is not None
    assert capsys.readouterr().out.strip() == expected.group(1)


def test_the_pytorch_example_learns() -> None:
    (example,) = [block.text for block in blocks(README, "python") if "import rnn" in block.text]
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["h"].shape == (1, 8, 100, 2, 32)
    assert names["r"].grad.norm() > 0
    assert names["b"].grad.norm() > 0
