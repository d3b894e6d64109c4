"""The command line: what it prints, its exit statuses, every kind of bad input, and how fast it starts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import LSTM, ROOT, fine, own_cell, process, refused, run

from kernelgen.records.config import SCHEMA
from kernelgen.schedules import schedule_names

pytestmark = pytest.mark.unit

# ---- help and start-up ----


def test_help_lists_every_command_with_examples() -> None:
    text = fine("--help")
    for command in (
        "gpus",
        "cells",
        "solve",
        "plan",
        "tune",
        "tune-all",
        "validate",
        "show",
        "store",
        "probe",
        "doctor",
    ):
        assert f"\n  {command} " in text
        own = fine(f"{command} --help")
        assert "Example" in own
        assert f"tilesmith {command}" in own
    assert fine("--version").startswith("tilesmith ")
    assert fine("--version").endswith("; constrint runs the C++ core\n")


@pytest.mark.parametrize("command", ["cells", "gpus", "store"])
def test_the_help_of_a_group_says_all_of_what_its_commands_do(command: str) -> None:
    _, _, listed = fine(f"{command} --help").partition("Commands:\n")
    assert listed
    assert "..." not in listed


def test_a_checkout_runs_as_the_command_does() -> None:
    one, other = process("gpus", "--json"), process("gpus", "--json", module=False)
    assert one.returncode == other.returncode == 0
    assert one.stdout == other.stdout


@pytest.mark.parametrize(("arguments", "seconds"), [("--help", 1.5), (f"plan {LSTM}", 6.0)])
def test_start_up_is_quick(arguments: str, seconds: float) -> None:
    """Processor time of the best of three, at most thrice what a quiet machine takes: busy ones take twice as much."""
    taken: list[float] = []
    while len(taken) < 3 and not any(each < seconds for each in taken):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process(*arguments.split(), env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < seconds


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from kernelgen.commands import main; main(['--help'], standalone_mode=False); "
        "print([m for m in ('numpy', 'sympy', 'pydantic', 'ortools', 'cuda', 'yaml', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_planning_for_a_named_gpu_imports_neither_driver_nor_what_tuning_needs() -> None:
    code = (
        f"import sys; from kernelgen.commands import main; main('plan {LSTM}'.split(), standalone_mode=False); "
        "print([m for m in ('cuda', 'numpy', 'ortools', 'sqlite3', 'kernelgen.records', 'kernelgen.tuning.tune') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- the small commands ----


def test_gpus_lists_and_shows_profiles() -> None:
    assert "h200" in fine("gpus")
    names = [entry["name"] for entry in json.loads(fine("gpus --json"))]
    assert {"t4", "a100-80gb", "h200", "b200"} <= set(names)
    text = fine("gpus show h200")
    assert "232,448" in text
    assert "measured" in text or "Programming Guide" in text
    assert json.loads(fine("gpus show h100 --json"))["name"] == "h100-sxm"


def test_cells_lists_and_shows_equations() -> None:
    assert "lstm" in fine("cells")
    assert {entry["name"] for entry in json.loads(fine("cells --json"))} >= {"lstm", "gru", "elman", "slstm"}
    text = fine("cells show lstm")
    assert "c' =" in text
    assert "σ(f)" in text
    assert json.loads(fine("cells show gru --json"))["gates"][2] == {
        "name": "n",
        "recurrent": False,
        "input": True,
        "bias": True,
    }


def test_a_cell_of_ones_own_is_planned(tmp_path: Path) -> None:
    file = own_cell(tmp_path)
    assert "leaky" in fine("cells show", f"{file}:LEAKY")
    tilings = json.loads(fine("plan --gpu h200 --batch 2 --seq 4 --head-dim 16 --json", f"{file}:LEAKY"))
    assert tilings


def test_plan_prints_the_keys_it_promises_best_first() -> None:
    tilings = json.loads(fine(f"plan {LSTM} --json"))
    keys = {"schedule", "tiling", "registers", "shared_memory", "model_us_per_step"}
    assert all(set(tiling) == keys for tiling in tilings)
    times = [tiling["model_us_per_step"] for tiling in tilings]
    assert times == sorted(times)
    assert json.loads(fine(f"plan {LSTM} --json --top 2")) == tilings[:2]
    assert "resident" in fine(f"plan {LSTM} --top 3")


def test_plan_ranks_backward_kernels_too() -> None:
    tilings = json.loads(fine(f"plan {LSTM} --direction backward --json"))
    assert {tiling["schedule"] for tiling in tilings} <= set(schedule_names("backward"))
    hidden = json.loads(fine(f"plan {LSTM} --direction backward --save hidden --json"))
    assert len(hidden) >= len(tilings)  # gradients of h alone need less
    result = run(f"plan {LSTM} --direction backward --top 3")
    assert result.exit_code == 0
    assert "backward tilings of lstm" in result.stderr


# ---- solve ----

PROBLEM = "x == [1, 2, 4, 8];\ny == [1, 2, 3];\nx * y <= 12;\nx % y == 0;\n"
CLASH = "x == [1, 2, 4];\ny == [1, 2, 3];\nx * y == 12;\nx % y == 0;\n"


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    """A problem with six solutions."""
    file = tmp_path / "problem.txt"
    file.write_text(PROBLEM)
    return file


def test_solve_answers_what_is_asked_in_json(problem: Path, tmp_path: Path) -> None:
    pairs = [(x, y) for x in (1, 2, 4, 8) for y in (1, 2, 3) if x * y <= 12 and x % y == 0]
    answer = json.loads(fine("solve --json", problem))
    assert set(answer) == {"status", "solution", "seconds"}
    assert answer["solution"] == {"x": 1, "y": 1}
    assert json.loads(fine("solve --json --count", problem))["count"] == len(pairs)
    every = json.loads(fine("solve --json --all", problem))["solutions"]
    assert sorted((s["x"], s["y"]) for s in every) == pairs
    assert len(json.loads(fine("solve --json --all --limit 2", problem))["solutions"]) == 2
    best = json.loads(fine("solve --json --maximize", problem, "--best", "x + 10 * y"))
    assert (best["status"], best["objective"]) == ("feasible", max(x + 10 * y for x, y in pairs))
    least = json.loads(fine("solve --json --engine cp-sat", problem, "--best", "y - x"))
    assert least["objective"] == min(y - x for x, y in pairs)
    clash = tmp_path / "clash.txt"
    clash.write_text(CLASH)
    answer = json.loads(fine("solve --json", clash))
    assert (answer["status"], answer["solution"]) == ("infeasible", None)
    answer = json.loads(fine("solve --json --explain", clash))
    assert answer["status"] == "infeasible"
    assert len(answer["core"]) == 2
    assert json.loads(fine("solve --json --count", clash)) | {"seconds": 0} == {
        "status": "infeasible",
        "count": 0,
        "seconds": 0,
    }


def test_solve_prints_for_people(problem: Path, tmp_path: Path) -> None:
    assert "feasible" in fine("solve", problem)
    assert "6 solutions" in fine("solve --count", problem)
    assert fine("solve --all", problem).count("\n") > 6
    assert "objective 1\n" in fine("solve", problem, "--best", "x * y")
    clash = tmp_path / "clash.txt"
    clash.write_text(CLASH)
    assert "cannot hold together" in fine("solve --explain", clash)
    space = tmp_path / "space.json"
    space.write_text('{"tune_params": {"a": [1, 2, 3], "b": [1, 2, 3]}, "restrictions": ["a < b"]}')
    assert "3 solutions" in fine("solve --count", space)
    yaml = tmp_path / "space.yaml"
    yaml.write_text("tune_params: {a: [1, 2, 3], b: [1, 2, 3]}\nrestrictions: ['a < b']\n")
    assert "3 solutions" in fine("solve --count", yaml)


def test_solve_refuses_bad_files_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("x == [1, 2];\nx * == 3;\n")
    assert "line 2, column 5" in refused("solve", file)
    space = tmp_path / "space.json"
    space.write_text('{"tune_params": {"a": [1, 2]}, "restrictions": ["__import__(\'os\').system(\'touch hacked\')"]}')
    message = refused("solve", space)
    assert "more than arithmetic" in message
    assert "column 1" in message
    assert not (ROOT / "hacked").exists()
    space.write_text('{"tune_params": {"a": [1, 2]}')
    assert "not JSON" in refused("solve", space)
    space.write_text('{"tune_params": {"a": [1, [2.5]]}}')
    assert "2.5" in refused("solve", space)
    assert "cannot read" in refused("solve", tmp_path / "nothing")
    assert "cannot read" in refused("solve", tmp_path)


def test_solve_refuses_two_questions_and_conditions_as_objectives(problem: Path) -> None:
    assert "two questions" in refused("solve --count --best x", problem)
    assert "--best" in refused("solve --maximize", problem)
    assert "--all" in refused("solve --limit 3", problem)
    assert "not the condition" in refused("solve", problem, "--best", "x == 1")
    assert "unknown name 'z'" in refused("solve", problem, "--best", "x + z")
    assert "--best, line 1, column 1: the expression is empty; it must be a number" in refused(
        "solve", problem, "--best", ""
    )
    assert "'fast'" in refused("solve --engine fast", problem)


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("plan lstm --gpu h2000 --batch 1 --seq 1 --head-dim 16", "did you mean h200"),
        ("plan lstn --gpu h200 --batch 1 --seq 1 --head-dim 16", "did you mean lstm"),
        ("plan lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --dtype bfloat", "did you mean bfloat16"),
        ("plan lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --save gate", "did you mean gates"),
        ("plan lstm --gpu h200 --batch -1 --seq 1 --head-dim 16", "batch must be an integer of at least 1, not -1"),
        ("plan lstm --gpu h200 --batch 1 --seq 0 --head-dim 16", "seq must be an integer of at least 1, not 0"),
        ("plan lstm --gpu h200 --batch 1 --seq 1 --head-dim 1.5", "'1.5' is not a valid integer."),
        ("plan lstm --gpu h200 --batch many --seq 1 --head-dim 16", "'many' is not a valid integer."),
        ("plan lstm --gpu h200 --seq 1 --head-dim 16", "--batch"),
        ("plan lstm --gpu h200 --batch 3000000000 --seq 1 --head-dim 16", "3,000,000,000 is more than 2,147,483,647"),
        ("plan lstm --gpu h200 --batch 100000000 --seq 8 --head-dim 16", "h200"),
        ("plan lstm --gpu t4 --batch 1 --seq 1 --head-dim 16", "t4 (sm_75)"),
        ("plan nothing.py:A --gpu h200 --batch 1 --seq 1 --head-dim 16", "cannot read the cell file nothing.py"),
        ("gpus show nothing.yaml", "nothing.yaml"),
        ("gpus show h2000", "did you mean h200"),
        ("cells show lstn", "did you mean lstm"),
        ("plna lstm", "did you mean plan"),
        ("cells lstm", "no such command 'lstm'; did you mean `tilesmith cells show lstm`?"),
        ("gpus h200", "no such command 'h200'; did you mean `tilesmith gpus show h200`?"),
        ("store mrge", "no such command 'mrge'; did you mean merge?"),
        ("solve nothing.txt --count --all", "--count and --all are two questions"),
        ("plan lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --top 0", "'--top': 0 is less than 1"),
        ("tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --budget -1", "--budget"),
        ("tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --budget soon", "'soon' is not a valid number."),
        ("tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 -o lstm.txt", ".yaml"),
        ("tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 -o cli.py/lstm.yaml", "not a folder"),
        (
            "tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --direction both --save hidden",
            "--save hidden does not",
        ),
        ("tune lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --direction back", "'forward', 'backward', 'both'"),
        ("plan lstm --gpu h200 --batch 1 --seq 1 --head-dim 16 --direction both", "'forward', 'backward'"),
        ("validate nothing.yaml", "cannot read nothing.yaml"),
        ("validate nothing.yaml --seeds 0", "--seeds"),
        ("show nothing.yaml", "cannot read nothing.yaml"),
        ("show pyproject.toml", "pyproject.toml"),
    ],
)
def test_bad_input_is_one_message_and_status_2(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    before = sorted(path.name for path in ROOT.iterdir())
    assert message in refused(arguments)
    assert sorted(path.name for path in ROOT.iterdir()) == before


def test_an_infeasible_shape_names_the_limits_with_numbers_and_writes_nothing(tmp_path: Path) -> None:
    for command, output in (("plan", ()), ("tune", ("-o", tmp_path / "big.yaml"))):
        message = refused(f"{command} lstm --gpu h200 --batch 100000000 --seq 8 --heads 1 --head-dim 16", *output)
        assert "65,535" in message
        assert "clash" in message
    assert list(tmp_path.iterdir()) == []


def test_auto_without_a_gpu_says_which_profiles_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "there is no NVIDIA driver on this machine")
    message = refused("plan lstm --batch 1 --seq 1 --head-dim 16")
    assert "h200" in message
    assert "no NVIDIA driver" in message


def test_a_foreign_yaml_and_another_schema_version_are_refused(tuned: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("a: 1\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    copy = tmp_path / tuned.name
    for suffix in (".yaml", ".cu", ".cubin"):
        shutil.copy(tuned.with_suffix(suffix), copy.with_suffix(suffix))
    text = copy.read_text()
    newer = tmp_path / "newer.yaml"
    newer.write_text(text.replace(f"schema_version: {SCHEMA}", "schema_version: 99"))
    assert newer.read_text() != text
    for command in ("show", "validate --emulate"):
        assert "no tuned configuration" in refused(command, foreign)
        assert "not YAML" in refused(command, broken)
        assert "schema version 99" in refused(command, newer)
    copy.with_suffix(".cu").write_text("another source")
    assert "tune again" in refused("show", copy).lower()
