"""Every command and every Python example of the README runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Every command of the shell blocks, without comments."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_tour_runs_from_start_to_end(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tour = [words for words in commands() if words[0] == "tilesmith"]
    assert len(tour) >= 6
    for words in tour:
        done = subprocess.run(
            [sys.executable, "-m", "kernelgen.commands", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), f"{' '.join(words)} printed nothing"


def test_the_make_targets_exist() -> None:
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert targets == ["tune", "test"]
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_known() -> None:
    assert {words[0] for words in commands()} <= {"make", "tilesmith"}


def test_the_solver_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in blocks("python") if "constrint" in block]
    exec(compile(example, "README.md", "exec"), {})
    expected = re.search(r"print\(.*\)\s+# (.*)", example)
    assert expected is not None
    assert capsys.readouterr().out.strip() == expected.group(1)


def test_the_pytorch_example_learns() -> None:
    (example,) = [block for block in blocks("python") if "import rnn" in block]
    done = subprocess.run(
        [sys.executable, "-c", f"{example}\nprint(h.shape, r.grad.norm() > 0, b.grad.norm() > 0)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch.Size([1, 8, 100, 2, 32]) tensor(True) tensor(True)\n"


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
