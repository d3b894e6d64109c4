"""Configurations and trials with the names of then are read by the names of today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_config import BINARY, PROGRAM, TILING, complaint, make, older
from test_store_migration import contents, make_old
from trials import FULL

from kernelgen import schedules
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.records.config_reading import load_config, read_program
from kernelgen.records.renames import LAST_SCHEMA, TILE_VARIABLES, renamed, source_of_today
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


@pytest.mark.parametrize("version", range(1, LAST_SCHEMA + 1))
def test_a_configuration_of_then(tmp_path: Path, version: int) -> None:
    path = tmp_path / "lstm.yaml"
    make().save(path, PROGRAM, [BINARY])
    older(path, version, tiling=str(FORWARD_THEN))
    config = load_config(path)
    assert list(config.tiling.items()) == list(FORWARD_NOW.items())
    assert read_program(path).num_stages == FORWARD_NOW["num_stages"]


def test_a_newer_schema_has_the_names_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "lstm.yaml"
    make(tiling=replace(TILING, values=FORWARD_THEN)).save(path, PROGRAM, [BINARY])
    assert load_config(path).tiling == FORWARD_THEN


@pytest.mark.parametrize("tiling", ["3", "[1]", "{prefetch: six}"])
def test_a_tiling_of_another_kind_is_said_to_be_wrong(tmp_path: Path, tiling: str) -> None:
    path = tmp_path / "lstm.yaml"
    make().save(path, PROGRAM, [BINARY])
    older(path, LAST_SCHEMA, tiling=tiling)
    assert "tiling" in complaint(path)


def test_a_source_of_then_is_one_of_today(tmp_path: Path) -> None:
    cell, shape, profile = load_cell("gru"), Shape(16, 64, 2, 64), load_profile("h200")
    tiling = Tiling("resident", FORWARD_NOW, TILING.resources, 1.0)
    program = schedules.get("resident").program(cell, shape, profile, tiling)
    today, text = program.main.source, program.main.source.text
    for old, new in TILE_VARIABLES["resident"].items():
        text = text.replace(f".{new} =", f".{old} =")
    assert text != today.text
    assert source_of_today(text) == today.text
    assert source_of_today(today.text) == today.text
    then = replace(program, main=replace(program.main, source=replace(today, text=text)))
    path = tmp_path / "lstm.yaml"
    make(program=then).save(path, then, [BINARY])
    assert read_program(path) == program
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
