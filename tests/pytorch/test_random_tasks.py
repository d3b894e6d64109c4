"""benchmarks/random_tasks.py without a GPU: the loop on the CPU, and small tasks through the emulated kernels."""

from __future__ import annotations

import dataclasses
import importlib
from collections import Counter
from typing import Any

import pytest
from scripts import load_benchmark

pytest.importorskip("torch")
random_tasks = load_benchmark("random_tasks")

import torch  # noqa: E402
from test_torch_kernels import emulated  # noqa: E402, F401


def small(seed: int) -> Any:
    """A task of that seed that takes the loop, or the emulator, no time."""
    task = random_tasks.draw(seed, largest=20)
    seq = min(task.seq, 5)
    checkpoint = task.checkpoint and min(task.checkpoint, seq)
    return dataclasses.replace(task, batch=min(task.batch, 4), seq=seq, heads=min(task.heads, 2), checkpoint=checkpoint)


@pytest.mark.unit
def test_a_seed_is_a_task_and_a_family_shares_its_kernels() -> None:
    tasks = [random_tasks.draw(seed) for seed in range(300)]
    assert tasks == [random_tasks.draw(seed) for seed in range(300)]
    for first in range(0, 300, random_tasks.FAMILY):
        family = tasks[first : first + random_tasks.FAMILY]
        assert (
            len({(task.cell, task.heads, task.dim, task.dtype, task.returns, task.recompute) for task in family}) == 1
        )
    assert {task.dtype for task in tasks} == {*random_tasks.DTYPES}
    assert {layout for task in tasks for layout in task.layouts} == {*random_tasks.LAYOUTS}
    assert max(task.dim for task in tasks) > 600 > 16 > min(task.dim for task in tasks)
    assert not any(task.resets and task.checkpoint for task in tasks)
    covered = [list(family) for family in random_tasks.families(range(4, 11))]
    assert covered == [[4, 5], [6, 7, 8], [9, 10]]


@pytest.mark.unit
def test_the_loop_agrees_with_itself_in_float64() -> None:
    found = [random_tasks.outcome(small(seed), "cpu") for seed in range(3, 60, 6)]
    wrong = [(each.task.seed, each.kind, each.error) for each in found if each.kind != "right"]
    assert not wrong
    assert Counter(bool(each.task.needs) for each in found)[True] > 3


@pytest.mark.unit
def test_what_is_wrong_is_said() -> None:
    task = next(task for task in map(small, range(60)) if task.needs and task.batch and task.dtype == "float32")
    expected = random_tasks.expected_of(task)
    made, _ = random_tasks.run(task, "cpu")
    assert random_tasks.difference(task, made, expected) == ""
    spoilt = {**made, "last": made["last"] + 0.01}
    assert "last is off by" in random_tasks.difference(task, spoilt, expected)
    gone = {name: values for name, values in made.items() if name != "every"}
    assert random_tasks.difference(task, gone, expected) == "no every"
    refused = random_tasks.outcome(dataclasses.replace(task, cell="lstm", checkpoint=-1), "cpu")
    assert refused.kind == "refused"


@pytest.mark.unit
@pytest.mark.parametrize("layout", random_tasks.LAYOUTS)
def test_a_tensor_lies_as_it_is_asked(layout: str) -> None:
    values = torch.arange(24.0).view(2, 3, 4)
    laid = random_tasks.lay_out(values, layout, 0)
    assert laid.shape == values.shape
    if layout == "expanded":
        assert laid.stride(0) == 0
        assert torch.equal(laid[1], values[0])
    else:
        assert torch.equal(laid, values)
    assert laid.is_contiguous() == (layout in ("plain", "misaligned"))
    assert bool(laid.data_ptr() % 16) == (layout == "misaligned")


@pytest.mark.emulated
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("seed", [43, 61])
def test_the_kernels_agree_with_the_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("kernelgen.torch.recording")  # which the function of that name hides
    monkeypatch.setattr(module, "_ran", {})  # what ran as a loop before is no news
    found = random_tasks.outcome(small(seed), "cpu")
    assert (found.kind, found.loops, found.error) == ("right", 0, "")
