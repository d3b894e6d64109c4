"""What a program ran: counted, written down for tune-all, and explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from kernelgen.cells import load_cell  # noqa: E402
from kernelgen.errors import ConfigError  # noqa: E402
from kernelgen.hardware.profile import load_profile  # noqa: E402
from kernelgen.program.shape import Shape  # noqa: E402
from kernelgen.records.workload import load_workload  # noqa: E402
from kernelgen.schedules import get, schedule_names  # noqa: E402
from kernelgen.torch import explain, recording, rnn  # noqa: E402
from kernelgen.torch.recording import Ran, _choices  # noqa: E402
from kernelgen.tuning.plan import plan  # noqa: E402

pytestmark = pytest.mark.unit


def _run(dtype: Any = torch.bfloat16, cell: Any = "lstm", seq: int = 3, learn: bool = False) -> None:
    wx, r, b = torch.randn(2, seq, 4, 1, 8), torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8)
    leaves = [part.to(dtype).requires_grad_(learn) for part in (wx, r, b)]
    h, _ = rnn(*leaves, cell=cell, returns="hidden")
    if learn:
        h.sum().backward()


def test_what_runs_meanwhile_is_counted_and_written_down(tmp_path: Path) -> None:
    _run(seq=5)
    with recording() as recorded:
        for _ in range(3):
            _run(learn=True)
        _run()
        _run(torch.float64)
    _run(seq=7)
    hidden, kept = Shape(2, 3, 1, 8), Shape(2, 3, 1, 8, save="gates")
    assert [(w.shape, w.direction, w.runs) for w in recorded.work] == [
        (kept, "forward", 3),
        (hidden, "backward", 3),
        (hidden, "forward", 1),
        (replace(hidden, dtype="float64"), "forward", 1),
    ]
    recorded.save(tmp_path / "work.yaml")
    assert [(w.shape, w.direction, w.runs) for w in load_workload(tmp_path / "work.yaml")] == [
        (w.shape, w.direction, w.runs) for w in recorded.work
    ]
    assert repr(recorded) == "Recording(passes=4, runs=8, loops=8)"
    text = recorded.explain()
    assert "forward lstm at B=2 T=3 1x8 bfloat16 on cpu: 3 runs" in text
    assert "forward lstm at B=2 T=3 1x8 float64 on cpu: 1 run\n" in text
    assert "T=7" not in text
    assert "T=7" in explain()


def test_a_cell_made_in_python_is_left_out_with_a_warning(tmp_path: Path) -> None:
    with recording() as recorded:
        _run(cell=replace(load_cell("lstm"), name="mine"))
    with (
        pytest.warns(RuntimeWarning, match="put it into a file"),
        pytest.raises(ConfigError, match="nothing to write"),
    ):
        recorded.save(tmp_path / "work.yaml")


def test_choices_are_explained_with_the_models_times() -> None:
    cell, shape, gpu = load_cell("lstm"), Shape(16, 1024, 1, 512, save="gates"), load_profile("h200")
    tiling = plan(cell, shape, gpu, top=1)[0]
    ran = Ran(cell, get(tiling.schedule).program(cell, shape, gpu, tiling))
    lines = list(_choices(ran, shape, "forward", gpu))
    assert lines[0].startswith(f"  {tiling} ran: ")
    others = {name for name in schedule_names("forward") if name != tiling.schedule}
    assert {line.split(":")[0].strip() for line in lines[1:]} == others
    assert any("resident: " in line and "clash" in line for line in lines)
