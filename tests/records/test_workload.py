"""Workloads: what is written is read again, wrong files are refused in words, and the jobs that they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import ConfigError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.records.config import CellRecord
from kernelgen.records.workload import Work, load_workload, save_workload
from kernelgen.tuning.workload import jobs

pytestmark = pytest.mark.unit


def _work(shape: Shape, runs: int, spec: str = "lstm", direction: Direction = "forward") -> Work:
    cell = load_cell(spec)
    return Work(cell, CellRecord.of(cell, spec), shape, direction, runs)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(Path("examples/own_cell.py").read_text(encoding="utf-8"), encoding="utf-8")
    work = [
        _work(Shape(4, 32, 2, 64, "float16", "gates"), 7),
        _work(Shape(4, 32, 2, 64, "float16", "hidden", recompute=True), 5, direction="backward"),
        _work(Shape(1, 9, 1, 16), 1, f"{mine}"),
    ]
    save_workload(tmp_path / "deep" / "work.yaml", work)
    mine.unlink()  # its text lies in the workload
    found = load_workload(tmp_path / "deep" / "work.yaml")
    assert [(w.shape, w.direction, w.runs, w.cell.fingerprint) for w in found] == [
        (w.shape, w.direction, w.runs, w.cell.fingerprint) for w in work
    ]


def test_a_cell_that_nobody_finds_again_is_refused(tmp_path: Path) -> None:
    changed = load_cell("gru").with_gradient(recurrent_cut=True, recurrent_clip=None)
    work = Work(changed, CellRecord.of(changed), Shape(1, 2, 1, 8), "forward", 1)
    with pytest.raises(ConfigError, match="put it into a file"):
        save_workload(tmp_path / "work.yaml", [work])
    assert not (tmp_path / "work.yaml").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format: tilesmith-workload", "format: recipe", "no workload"),
        ("runs: 3", "runs: 0", "work.0.runs"),
        ("runs: 3", "run: 3", "no such field"),
        ("head_dim: 64", "head_dim: -1", "at least 1"),
        ("direction: forward", "direction: sideways", "work.0.direction"),
        ("name: lstm", "name: lstn", "cannot be built"),
        ("fingerprint: ", "fingerprint: 0", "has changed since"),
    ],
)
def test_wrong_files_are_refused_in_words(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "work.yaml"
    save_workload(path, [_work(Shape(4, 32, 2, 64), 3)])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        load_workload(path)


def test_jobs_are_kernels_longest_first() -> None:
    work = [
        _work(Shape(4, 8, 2, 32), 2),
        _work(Shape(4, 64, 2, 32), 2),  # the same kernel, and the longer run of it
        _work(Shape(4, 64, 2, 32, lengths=True), 1),  # another kernel
        _work(Shape(16, 1024, 12, 64), 100),
        _work(Shape(16, 1024, 12, 64, save="gates"), 100, direction="backward"),
    ]
    found = jobs(work, load_profile("h200"))
    assert [job.name for job in found] == [
        "lstm_12x64_b16_bfloat16_backward",
        "lstm_12x64_b16_bfloat16_forward",
        "lstm_2x32_b4_bfloat16_forward",
        "lstm_2x32_b4_bfloat16_forward_lengths",
    ]
    assert [job.runs for job in found] == [100, 100, 4, 1]
    assert found[2].work.shape.seq == 64
    assert sum(job.share for job in found) == pytest.approx(1)
    assert found[0].total_ms == pytest.approx(100 * found[0].run_ms)


def test_a_job_without_a_kernel_says_why_and_comes_last() -> None:
    again = _work(Shape(16, 1024, 1, 1024, save="hidden", recompute=True), 100, direction="backward")
    found = jobs([again, _work(Shape(16, 16, 1, 32), 1)], load_profile("h200"))
    assert [bool(job.why_not) for job in found] == [False, True]
    assert "recompute" in found[1].why_not
