"""benchmarks/rnn.py without a GPU: rows, jobs, floors, what becomes of failures, the file, the table and the plots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scripts import load_benchmark

from kernelgen.cells import load_cell
from kernelgen.errors import LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.tuning import floors

pytest.importorskip("torch")
rnn = load_benchmark("rnn")

from job_records import made, serve  # noqa: E402
from peers import kernels, markdown, plots, report, steps  # noqa: E402
from peers.jobs import COMPILED, FLASHRNN, ONE_HEAD, OURS, SYSTEMS, TORCH_NN, Job, jobs  # noqa: E402
from peers.results import FOLDER, PASSES, Record, Results, dated  # noqa: E402
from peers.rows import GROUPS, Row, parse, selected  # noqa: E402
from peers.worker import Worker  # noqa: E402

pytestmark = pytest.mark.unit

ABOUT = {"gpu": "a GPU", "driver": "1", "torch": "2", "date": "2026-11-27"}


def test_rows_are_read_and_written_alike() -> None:
    assert parse("lstm:3x256:16") == Row("lstm", 3, 256, 16, 1024)
    assert parse("gru:1x512:1:64") == Row("gru", 1, 512, 1, 64)
    assert parse("module:lstm:512:32") == Row("lstm", 1, 512, 32, 128, module=True)
    for rows in GROUPS.values():
        assert all(parse(row.text) == row for row in rows)


@pytest.mark.parametrize("text", ["", "lstm", "lstm:3x256", "lstm:256:16", "lstm:3x256:0", "lstm:1x2:3:4:5", "module:"])
def test_what_is_no_row_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is no row; it must be CELL:HEADSxDIM:BATCH"):
        parse(text)


def test_a_row_of_several_groups_is_measured_once() -> None:
    rows = selected(["all"])
    assert len({row.text for row in rows}) == len(rows) < sum(map(len, GROUPS.values()))
    assert next(row for row in rows if row.text == "lstm:4x256:16:1024").groups == ("table", "batch")
    assert [row.text for row in selected([], ["lstm:1x8:2", "lstm:1x8:2:1024"])] == ["lstm:1x8:2:1024"]
    quick = selected(["all"], quick=True)
    assert len(quick) <= 2 * len(GROUPS)
    assert {row.seq for row in quick} == {64}


def test_cudnn_runs_one_head_where_a_row_has_several_and_says_so() -> None:
    todo = jobs([parse("lstm:3x256:16"), parse("gru:1x512:16"), parse("slstm:1x512:16")], SYSTEMS, 0.1)
    found = [(job.row.cell, job.system, job.dtype) for job in todo]
    assert ("lstm", ONE_HEAD, "float16") in found
    assert ("lstm", TORCH_NN, "float16") not in found
    assert ("gru", TORCH_NN, "bfloat16") in found
    assert not [system for cell, system, _ in found if cell == "slstm" and system in (ONE_HEAD, TORCH_NN)]
    several = next(job for job in todo if job.system == ONE_HEAD)
    assert (several.shape.heads, several.row.heads) == (1, 3)
    assert [job.system for job in todo][-3:] == [COMPILED, FLASHRNN, FLASHRNN]
    alone = jobs([parse("lstm:1x256:16")], [TORCH_NN], 0.1)[0]
    assert alone.same == several.same  # one time serves both
    assert jobs([parse("lstm:1x256:8")], [TORCH_NN], 0.1)[0].same != several.same


def test_the_kernels_of_a_pass_are_those_that_the_operator_asks_for() -> None:
    row = parse("lstm:3x256:16")
    (forward,) = kernels.of_row(row, "bfloat16", "forward")
    assert (forward.direction, forward.shape.save, forward.shape.batch) == ("forward", "hidden", 16)
    tasks = kernels.of_row(row, "bfloat16", "training")
    assert [(task.direction, task.shape.save) for task in tasks] == [("forward", "gates"), ("backward", "hidden")]


@pytest.mark.parametrize("text", ["lstm:2x3:3:5", "gru:1x4:1:3", "module:lstm:4:2:5"])
def test_a_step_is_compared_with_float64(text: str) -> None:
    step = steps.ours(parse(text), "float32")
    assert step.error(step.forward(), training=False) < 1e-5
    step.sample()
    made = step.training()
    assert step.error(made, training=True) < 1e-5
    for name, value in made.items():
        value[(0,) * value.ndim] += 1
        assert step.error(made, training=True) > 1e-3, name
        value[(0,) * value.ndim] -= 1


def test_floors_follow_their_formula() -> None:
    """12 x 64 by hand: one block, a barrier, a load, a matrix instruction, 16 at their rate, the pointwise step."""
    lstm, h200 = load_cell("lstm"), load_profile("h200")
    row = parse("lstm:12x64:16")
    cost = floors.cell_cost(lstm)
    pointwise = 17.1 * cost.chain_special + 4 * cost.chain_arithmetic
    clocks = 21 + 29.1 + 25 + 16 * 6.2 + pointwise
    assert floors.floor_ms(lstm, row, h200, "forward") == pytest.approx(1024 * clocks / 1.98e6, rel=0.01)
    # A batch of that size is bound by the bytes of Wx and h.
    large = replace(row, batch=4096)
    assert floors.floor_ms(lstm, large, h200, "forward") == pytest.approx(5 * 2 * 4096 * 1024 * 768 / 4.8e9)
    # A head that no multiprocessors hold is read from memory in every step.
    streamed = parse("lstm:1x8192:1")
    assert floors.floor_ms(lstm, streamed, h200, "forward") > 1024 * 4 * 2 * 8192**2 / 4.8e9
    for row in selected(["table"]):
        forward, training = (floors.floor_ms(lstm, row, h200, what) for what in PASSES)
        assert forward is not None
        assert training is not None
        assert 0 < 2 * forward * 0.7 < training


def test_the_file_keeps_everything_and_no_day_overwrites_another(tmp_path: Path) -> None:
    job = Job(replace(parse("lstm:1x512:16"), groups=("table",)), OURS, "bfloat16", 0.1)
    results = Results(dict(ABOUT), [*made(job), *job.refused("no\nkernel")])
    path = dated("2026-11-27", "NVIDIA H200", tmp_path)
    assert path.name == "2026-11-27-nvidia-h200.json"
    results.write(path)
    assert Results.read(path) == results
    assert dated("2026-11-27", "NVIDIA H200", tmp_path).name == "2026-11-27-nvidia-h200-2.json"
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="no file of"):
        Results.read(path)


def test_the_table_has_a_line_for_each_pass_and_reasons_below_it() -> None:
    row = parse("lstm:3x256:16")
    records = [
        *made(Job(row, OURS, "bfloat16", 0.1), 0.5),
        *made(Job(row, ONE_HEAD, "float16", 0.1), 1.75),
        *Job(row, FLASHRNN, "bfloat16", 0.1).refused("it does not build"),
    ]
    results = Results(dict(ABOUT), records)
    shown = report.table(results, "")
    assert shown.row_count == 2
    cells = {str(column.header): list(column.cells) for column in shown.columns}
    assert cells["tilesmith ms"] == ["0.500", "0.500"]
    assert cells["x floor"] == ["1.00", "1.00"]
    assert cells["one head fp16"] == ["1.750", "1.750"]
    assert cells["cuDNN fp16"] == ["", ""]
    assert cells["FlashRNN"] == ["-", "-"]
    (line,) = report.refusals(results)
    assert line.startswith("FlashRNN bfloat16: it does not build (lstm:3x256:16:1024 forward, ")


class _Worker:
    """Measures at once; what is asked of it lands in ``asked``."""

    asked: list[Job]

    def __init__(self, *_: Any) -> None: ...

    def records(self, job: Job, seconds: float) -> list[Record]:
        _Worker.asked.append(job)
        return job.refused("it does not build") if job.system == FLASHRNN else made(job)

    def close(self) -> None: ...


def _run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> tuple[str, Results]:
    """A whole run with a GPU that is none."""
    _Worker.asked = []
    device = type("Device", (), {"name": "a GPU", "profile": lambda self: load_profile("h200")})()
    monkeypatch.setattr(rnn.gpu, "device", lambda index: device)
    monkeypatch.setattr(rnn, "Worker", _Worker)
    monkeypatch.setattr(rnn, "prepare", lambda *_: iter([(1, 1)]))
    out = tmp_path / "out.json"
    result = CliRunner().invoke(rnn.main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return result.output, Results.read(out)


def test_a_run_measures_the_same_thing_once_and_leaves_flashrnn_that_never_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [f"--row=lstm:{size}:16" for size in ("3x256", "4x256", "1x512", "1x768")]
    output, results = _run(monkeypatch, tmp_path, *rows, f"--flashrnn={tmp_path}")
    asked = [(job.system, job.dtype, job.row.head_dim) for job in _Worker.asked]
    assert asked.count((ONE_HEAD, "float16", 256)) == 1
    one_head = [r for r in results.records if r.system == ONE_HEAD and r.dtype == "float16"]
    assert [record.row for record in one_head] == ["lstm:3x256:16:1024"] * 2 + ["lstm:4x256:16:1024"] * 2
    assert all(record.ms == 1.0 for record in one_head)
    assert sum(job.system == FLASHRNN for job in _Worker.asked) == rnn.UNBUILT
    assert "it does not build" in output
    assert "left out" in output
    assert results.about["gpu"] == "a GPU"


def test_rows_beyond_the_budget_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output, results = _run(monkeypatch, tmp_path, "--row=lstm:1x512:16", "--budget=0")
    assert not _Worker.asked
    assert {record.reason for record in results.records} == {"the time budget was spent"}
    assert "FlashRNN was not measured" in output


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(index: int) -> None:
        raise LaunchError("no GPU to run on")

    monkeypatch.setattr(rnn.gpu, "device", none)
    for row, said in (("lstm:1x512", "is no row"), ("lstm:1x512:16", "no GPU to run on")):
        result = CliRunner().invoke(rnn.main, [f"--row={row}"])
        assert (result.exit_code, said in result.output) == (1, True)


def test_a_worker_that_dies_or_hangs_is_a_reason_and_the_next_one_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("peers.worker.serve", serve)
    worker = Worker(tmp_path / "log")
    job = Job(parse("lstm:1x8:2"), OURS, "bfloat16", 0.1)
    try:
        for name, said in (("dies", "status 3"), ("hangs", "not done after"), ("faults", "a fault"), ("works", "")):
            (record, _) = worker.records(replace(job, system=name), 2.0 if name == "hangs" else 60.0)
            assert said in record.reason
        assert record.ms == 1.0
    finally:
        worker.close()


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = selected(["table", "grid"])
    records = [r for job in jobs(rows, [OURS, TORCH_NN, ONE_HEAD], 0.1) for r in made(job, job.row.batch / 16)]
    path = tmp_path / "results.json"
    Results(dict(ABOUT), records).write(path)
    assert set(plots.figures(Results.read(path))) == {
        "table", "heads", "batch_12x64", "batch_1x768", "steps_12x64", "steps_1x768",
    }  # fmt: skip
    plot = load_benchmark("plot_rnn")
    few = [record for record in records if record.row == "lstm:12x64:16:1024"]
    Results(dict(ABOUT), few).write(path)
    result = CliRunner().invoke(plot.main, [str(path), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(tmp_path / "rnn_table.svg")]
    assert "floor" in (tmp_path / "rnn_table.svg").read_text()
    Results(dict(ABOUT)).write(path)
    assert "no times to draw" in CliRunner().invoke(plot.main, [str(path)]).output


def test_documents_are_filled_with_tables(tmp_path: Path) -> None:
    rows = [*selected(["table"])[:2], *selected(["cells"])[:2], *selected(["modules"])[:1]]
    records = [r for job in jobs(rows, SYSTEMS, 0.1) for r in made(job, 1.5)]
    file, document = tmp_path / "results.json", tmp_path / "page.md"
    Results({**ABOUT, "tuned_seconds": 0.0}, records).write(file)
    document.write_text("before\n<!-- rnn:table -->\nold\n<!-- /rnn -->\n<!-- rnn:cells -->\n<!-- /rnn -->\nafter\n")
    tables = load_benchmark("rnn_tables")
    for _ in range(2):  # what is there is replaced
        result = CliRunner().invoke(tables.main, [str(file), str(document)])
        assert result.exit_code == 0, result.output
    lines = document.read_text().splitlines()
    assert "old" not in lines
    assert "| 24 x 32, 16 | **1.50** | 1.50 † | 1.50 | **1.50** | 1.50 † | 1.50 |" in lines
    assert "| heads x D, B | sLSTM | training | GRU | training |" in lines
    assert "| 3 x 256, 16 | 1.50 | 1.50 | 1.50 | 1.50 |" in lines
    assert any("not tuned; errors of ours against float64 up to 1.0e-03" in line for line in lines)
    assert (lines[0], lines[-1]) == ("before", "after")
    document.write_text("<!-- rnn:nothing -->\n<!-- /rnn -->\n")
    assert "no table of 'nothing'" in CliRunner().invoke(tables.main, [str(file), str(document)]).output
    assert "| module 512, 32 |" in CliRunner().invoke(tables.main, [str(file)]).output


def test_the_tables_of_documents_are_those_of_the_last_results() -> None:
    root = FOLDER.parents[1]
    newest = max(FOLDER.glob("*.json"))
    documents = [
        path for path in (root / "README.md", root / "docs" / "benchmarks.md") if "<!-- rnn:" in path.read_text()
    ]
    assert documents, "README.md shows what benchmarks/rnn.py measured"
    for path in documents:
        assert markdown.filled(path.read_text(), Results.read(newest)) == path.read_text(), (
            f"python benchmarks/rnn_tables.py {newest.relative_to(root)} {path.relative_to(root)}"
        )
