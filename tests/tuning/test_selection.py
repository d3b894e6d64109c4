"""Which kernel serves a shape in PyTorch: tuned configurations, then measurements in the store, then the model."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernelgen.build.compile import Report
from kernelgen.cells import load_cell
from kernelgen.errors import StoreError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.records.store import Store
from kernelgen.records.trial import Measurement, Trial
from kernelgen.tuning.plan import plan, spread
from kernelgen.tuning.selection import MEASURED, TRIED, candidates, compiled
from kernelgen.tuning.tune import save, tune

pytestmark = pytest.mark.unit

CELL = load_cell("elman")
PROFILE = load_profile("h200")
SHAPE = Shape(2, 64, 1, 16, save="gates")


@pytest.fixture
def store(fresh_cache: Path) -> Store:
    """The user's store, empty."""
    return Store()


def tilings(direction: Direction, shape: Shape = SHAPE) -> list[Tiling]:
    """The model's, in the order in which they are tried."""
    return spread(plan(CELL, shape, PROFILE, direction=direction))


def trial(tiling: Tiling, milliseconds: float, shape: Shape = SHAPE, **changes: Any) -> Trial:
    """A measurement of a tiling."""
    made = Trial(
        cell=CELL.name,
        fingerprint=CELL.fingerprint,
        shape=shape,
        gpu=PROFILE.name,
        arch=PROFILE.arch,
        schedule=tiling.schedule,
        tiling=dict(tiling.values),
        predicted=tiling.resources,
        model_us_per_step=1.0,
        status="measured",
        source_hash=f"{tiling} {shape}",
        measurement=Measurement(milliseconds, milliseconds, milliseconds, 10),
    )
    return replace(made, **changes)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_fastest_measured_comes_before_the_models_best(store: Store, direction: Direction) -> None:
    order = tilings(direction)
    slow, fast = order[TRIED], order[TRIED + 1]
    other = tilings("backward" if direction == "forward" else "forward")[0]
    for made in (trial(slow, 0.4), trial(fast, 0.3), trial(other, 0.1)):
        store.add(made)
    found = candidates(CELL, SHAPE, PROFILE, direction)
    assert [selection.tiling for selection in found] == [fast, slow, *order[:TRIED]]
    assert [selection.trial is not None for selection in found] == [True, True] + [False] * TRIED
    assert found[0].trial is not None
    assert found[0].trial.measurement == Measurement(0.3, 0.3, 0.3, 10)


def test_times_count_by_the_step_and_the_same_save_comes_first(store: Store) -> None:
    order = tilings("forward")
    longer = trial(order[3], 0.8, replace(SHAPE, seq=640))
    shorter = trial(order[4], 0.3, replace(SHAPE, seq=64))
    cheaper = trial(order[5], 0.01, replace(SHAPE, save="hidden"))
    for made in (shorter, longer, cheaper):
        store.add(made)
    found = candidates(CELL, replace(SHAPE, seq=7), PROFILE, "forward")
    assert [selection.tiling for selection in found[:3]] == [order[3], order[4], order[5]]
    hidden = candidates(CELL, replace(SHAPE, save="hidden"), PROFILE, "forward")
    assert hidden[0].trial is not None
    assert hidden[0].tiling.values == order[5].values


def test_measurements_of_something_else_do_not_count(store: Store) -> None:
    best, other = tilings("forward")[0], tilings("forward")[5]
    for shape in (replace(SHAPE, batch=3), replace(SHAPE, heads=2), replace(SHAPE, dtype="float16")):
        store.add(trial(other, 0.1, shape))
    store.add(trial(other, 0.1, gpu="a100-40gb"))
    store.add(trial(other, 0.1, fingerprint="another definition"))
    store.add(trial(other, 0.1, status="valid", measurement=None))
    store.add(replace(trial(other, 0.1), tiling={**other.values, "batch_tile": 5}))  # no schedule has it any more
    failed = trial(other, 0.1, source_hash="failed since")
    store.add(failed)
    store.add(replace(failed, status="failed", measurement=None, reason="a race"))
    assert [selection.trial for selection in candidates(CELL, SHAPE, PROFILE, "forward")] == [None] * TRIED
    assert candidates(CELL, SHAPE, PROFILE, "forward")[0].tiling == best


def test_only_the_first_few_measured_are_tried(store: Store) -> None:
    order = tilings("forward")
    for place in range(2 * MEASURED):
        store.add(trial(order[place], 1.0 - place / 10))
    found = candidates(CELL, SHAPE, PROFILE, "forward")
    fastest = [order[place] for place in range(2 * MEASURED - 1, MEASURED - 1, -1)]
    assert [selection.tiling for selection in found[:MEASURED]] == fastest
    assert len({selection.program.main.source.text for selection in found}) == len(found)


def test_a_store_that_cannot_be_read_costs_one_warning(store: Store) -> None:
    store.close()
    store.path.write_bytes(b"this is no database, but long enough to look at" * 50)
    with pytest.warns(RuntimeWarning, match="no measurement is used to choose a kernel: cannot open the store"):
        found = candidates(CELL, SHAPE, PROFILE, "forward")
    assert found[0].tiling == tilings("forward")[0]


def test_choosing_makes_no_store_and_waits_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert candidates(CELL, SHAPE, PROFILE, "forward")[0].trial is None
    assert not (tmp_path / "cache").exists()
    with Store() as busy:
        made = trial(tilings("forward")[5], 0.1)
        busy.add(made)
        busy._connection().execute("BEGIN IMMEDIATE")  # somebody writes
        assert candidates(CELL, SHAPE, PROFILE, "forward")[0].tiling == tilings("forward")[5]
        busy._connection().execute("ROLLBACK")
    with Store(write=False) as reading:
        assert reading.read_only
        assert reading.trials() == [made]
        with pytest.raises(StoreError, match="opened for reading only"):
            reading.add(made)


@pytest.mark.emulated
def test_a_configuration_comes_before_the_store_and_counts_for_its_direction(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    path = tmp_path / "configs" / "elman_backward.yaml"
    result = tune(CELL, SHAPE, PROFILE, direction="backward", top=1, seeds=1, store=None)
    save(result, path, "elman")
    monkeypatch.setenv("TILESMITH_CONFIGS", str(path.parent))
    measured = tilings("backward")[TRIED]
    store.add(trial(measured, 0.1))
    first, second, *rest = candidates(CELL, replace(SHAPE, seq=9), PROFILE, "backward")
    assert (first.tuned, first.tiling.values) == (path, result.best.tiling.values)
    assert (second.tuned, second.tiling) == (None, measured)
    assert all(selection.tiling != first.tiling for selection in rest)
    assert candidates(CELL, SHAPE, PROFILE, "forward")[0].tuned is None


def test_a_kernel_of_which_fewer_blocks_run_together_than_expected_is_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape(128, 1024, 12, 64, save="hidden")
    lstm, predicted = load_cell("lstm"), []

    def compiler_says(registers: dict[int, int], spills: dict[int, int]) -> None:
        """The compiler's registers, where not those predicted, and spills of the candidates by their place."""
        made: list[Source] = []

        def pretend(source: Source, **_: Any) -> Any:
            if source.entry != "tilesmith_backward":
                return SimpleNamespace(report=Report(32, 0, 0, 0, 0, 1))
            at = len(made) % len(predicted)
            made.append(source)
            used = registers.get(at, predicted[at].resources.registers)
            return SimpleNamespace(report=Report(used, 0, spills.get(at, 0), 0, 0, 1))

        monkeypatch.setattr("kernelgen.build.compile.compile_source", pretend)

    choices = candidates(lstm, shape, PROFILE, "backward")
    predicted[:], programs = [selection.tiling for selection in choices], [selection.program for selection in choices]
    together = predicted[0].resources.blocks_per_sm
    assert together > 1
    squeezed = 65536 // (predicted[0].resources.threads * together) + 8
    for registers, spills, chosen in (({}, {}, 0), ({0: squeezed}, {}, 1), ({0: squeezed}, {1: 4}, 2)):
        compiler_says(registers, spills)
        assert compiled(lstm, shape, PROFILE, "backward")[0] == programs[chosen]
    compiler_says({}, dict.fromkeys(range(TRIED), 4))
    assert compiled(lstm, shape, PROFILE, "backward")[0] == programs[0]
