"""Configurations and trials with the names of then are read by the names of today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_config import BINARY, SOURCE, TILING, TRIAL, complaint, make
from test_store import FULL
from test_store_migration import contents, make_old

from kernelgen import schedules
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.tiling import Tiling
from kernelgen.records.config import SCHEMA, load_config, read_source
from kernelgen.records.renames import (
    ARGUMENTS,
    LAST_SCHEMA,
    TILE_VARIABLES,
    renamed,
    source_of_today,
    with_names_of_today,
)
from kernelgen.records.store import Store

pytestmark = pytest.mark.unit

FORWARD_THEN = {"units_per_warp": 8, "batch_tile": 8, "k_split": 1, "register_groups": 2, "chains": 2, "prefetch": 6}
FORWARD_NOW = {
    "units_per_warp": 8,
    "batch_tile": 8,
    "k_split": 1,
    "k_tiles_in_registers": 2,
    "accumulators": 2,
    "num_stages": 6,
}
BACKWARD_THEN = {"batch_tile": 8, "register_groups": 3, "chains": 4, "prefetch": 12, "gate_groups": 1}
BACKWARD_NOW = {
    "batch_tile": 8,
    "k_tiles_in_registers": 3,
    "accumulators": 4,
    "num_stages": 12,
    "recompute_k_tiles_in_registers": 1,
}


def test_a_tiling_of_then_has_the_names_of_today_in_its_order() -> None:
    assert list(renamed("resident", FORWARD_THEN).items()) == list(FORWARD_NOW.items())
    assert list(renamed("resident_backward", BACKWARD_THEN).items()) == list(BACKWARD_NOW.items())
    assert renamed("resident", FORWARD_NOW) == FORWARD_NOW
    assert renamed("another", FORWARD_THEN) == FORWARD_THEN
    assert renamed("resident", {"prefetch": 6, "num_stages": 3}) == {"prefetch": 6, "num_stages": 3}


@pytest.mark.parametrize(("name", "recompute"), [("resident", False), ("resident_backward", True)])
def test_the_names_of_today_are_those_of_the_schedules(name: str, recompute: bool) -> None:
    shape = Shape(16, 64, 2, 64, save="states", recompute=recompute)
    problem = schedules.get(name).problem(load_cell("lstm"), shape, load_profile("h200"))
    assert {*TILE_VARIABLES[name].values()} <= {*problem.domains}
    assert not {*TILE_VARIABLES[name]} & {*problem.domains}


def saved(tmp_path: Path, schedule: str, values: dict[str, int], source: Source = SOURCE) -> Path:
    path = tmp_path / "lstm.yaml"
    tiling = replace(TILING, schedule=schedule, values=values)
    make(TRIAL.replace(schedule=schedule, tiling=values), tiling=tiling, source=source).save(path, source, BINARY)
    return path


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_forward_configuration_of_then(tmp_path: Path, version: int) -> None:
    path = saved(tmp_path, "resident", FORWARD_THEN)
    path.write_text(path.read_text().replace(f"schema_version: {SCHEMA}", f"schema_version: {version}"))
    config = load_config(path)
    assert list(config.tiling.items()) == list(FORWARD_NOW.items())
    assert config.to_tiling().values == FORWARD_NOW


def test_a_backward_configuration_of_then(tmp_path: Path) -> None:
    source = replace(SOURCE, arguments=("r", "d_wx", "d_r_rest", "d_b_rest", "seq"))
    path = saved(tmp_path, "resident_backward", BACKWARD_THEN, source)
    path.write_text(path.read_text().replace(f"schema_version: {SCHEMA}", f"schema_version: {LAST_SCHEMA}"))
    config = load_config(path)
    assert list(config.tiling.items()) == list(BACKWARD_NOW.items())
    assert config.arguments == ("r", "d_wx", "d_r_partial", "d_b_partial", "seq")


def test_a_newer_schema_has_the_names_that_it_has() -> None:
    fields = {
        "schema_version": LAST_SCHEMA + 1,
        "schedule": "resident",
        "tiling": FORWARD_THEN,
        "arguments": ["d_r_rest"],
    }
    assert with_names_of_today(fields) == fields


@pytest.mark.parametrize(("old", "new"), [("tiling:\n", "tiling: 3\nother:\n"), ("arguments: [", "arguments: [[1], ")])
def test_fields_of_another_kind_are_said_to_be_wrong(tmp_path: Path, old: str, new: str) -> None:
    path = saved(tmp_path, "resident", FORWARD_THEN)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert old.split(":")[0] in complaint(path)


@pytest.mark.parametrize(
    ("schedule", "values", "shape"),
    [
        ("resident", FORWARD_NOW, Shape(16, 64, 2, 64)),
        ("resident_backward", BACKWARD_NOW, Shape(16, 64, 2, 64, save="states", recompute=True)),
    ],
)
def test_a_source_of_then_is_one_of_today(tmp_path: Path, schedule: str, values: dict[str, int], shape: Shape) -> None:
    cell, profile = load_cell("gru"), load_profile("h200")
    today = schedules.get(schedule).source(cell, shape, profile, Tiling(schedule, values, TILING.resources, 1.0))
    names = {new: old for old, new in (*TILE_VARIABLES[schedule].items(), *ARGUMENTS.items())}
    text = today.text.replace("Gates::recomputed", "Gates::computed")
    for new in sorted(names, key=len, reverse=True):  # one is part of another
        text = text.replace(new, names[new])
    assert text != today.text
    assert source_of_today(text) == today.text
    assert source_of_today(today.text) == today.text
    path = saved(tmp_path, schedule, values, replace(today, text=text))
    assert read_source(path).text == today.text
    assert path.with_suffix(".cu").read_text() == text  # the file itself stays as its sha256 says


def test_trials_of_then_are_found_by_the_names_of_today(tmp_path: Path) -> None:
    forward = FULL.replace(tiling=FORWARD_THEN)
    backward = FULL.replace(schedule="resident_backward", tiling=BACKWARD_THEN, source_hash="s2")
    other = FULL.replace(schedule="another", tiling={"prefetch": 3}, source_hash="s3")
    make_old(tmp_path / "trials.sqlite", [forward, backward, other])
    expected = [replace(forward, tiling=FORWARD_NOW), replace(backward, tiling=BACKWARD_NOW), other]
    with Store(tmp_path / "trials.sqlite", write=False) as store:
        assert store.trials() == expected
    with Store(tmp_path / "trials.sqlite") as store:
        assert store.trials() == expected
        assert list(store.trials()[1].tiling) == list(BACKWARD_NOW)
    with Store(tmp_path / "trials.sqlite") as store:
        assert store.trials() == expected
    assert len(contents(tmp_path / "trials.sqlite")[2]) == 3
