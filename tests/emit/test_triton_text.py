"""The Triton text of a cell's step against the NumPy text, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zoo import zoo

from kernelgen.cells.language import Cell
from kernelgen.emit.numpy import numpy_backward, numpy_step
from kernelgen.emit.triton import StepText, helper_functions
from kernelgen.emit.triton_text import Lines, Options, module, signature
from kernelgen.program.launch import Launch
from kernelgen.program.source import Source
from kernelgen.verify.interpreter import interpret

pytest.importorskip("triton", reason="Triton is not installed, so its text is not run")

pytestmark = pytest.mark.unit

COUNT = 256
ARGUMENTS = ("gates", "states", "d_states", "d_initial", "last")
"""Names of float arrays; the last two are written: the new states, and the gradients."""


def steps_source(cell: Cell) -> Source:
    """A kernel that runs the step and the backward step of COUNT units."""
    forward, backward = StepText(cell), StepText(cell, backward=True)
    out = Lines()
    out.add("unit = tl.arange(0, BLOCK)")
    for name, array, members in (
        ("gate", "gates", [gate.name for gate in cell.gates]),
        ("state", "states", cell.states),
        ("d_next", "d_states", cell.states),
    ):
        out.add(*(f"{name}_{each} = tl.load({array} + {i} * BLOCK + unit)" for i, each in enumerate(members)))
    for step, array in ((forward, "last"), (backward, "d_initial")):
        results = ", ".join(step.results) + ("," if len(step.results) == 1 else "")
        out.add(f"{results} = {step.name}({', '.join(step.parameters)})")
        for index, result in enumerate(step.results):
            out.add(f"tl.store({array} + {index} * BLOCK + unit, {result} + tl.zeros((BLOCK,), dtype=tl.float32))")
    kernel = signature("steps", ARGUMENTS, ("BLOCK",)) + out.text()
    parts = [helper_functions(forward.used | backward.used), forward.text(), backward.text(), kernel]
    text = module("Steps.", parts) + Options({"BLOCK": COUNT}, 4, 1, 0).text("float32")
    return Source(text, "steps", "sm_90a", ARGUMENTS, ("d_initial", "last"), "triton")


def close(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    """Whether float32 arithmetic explains the difference."""
    scale = np.maximum(np.abs(expected), 1.0)
    return bool((np.abs(got - expected) <= 1e-4 * scale).all())


@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_triton_text_computes_what_the_numpy_text_does(name: str) -> None:
    cell = zoo()[name]
    random = np.random.default_rng(7)
    gates = random.normal(0, 2, (len(cell.gates), COUNT)).astype(np.float32)
    states = np.stack([random.uniform(*cell.range(state), COUNT) for state in cell.states]).astype(np.float32)
    states[:, : COUNT // 2] = 0
    d_next = random.normal(0, 1, states.shape).astype(np.float32)
    new = np.full(states.shape, np.nan, np.float32)
    gradients = np.full((len(cell.gates) + len(states), COUNT), np.nan, np.float32)
    given = dict(zip(ARGUMENTS, (gates, states, d_next, gradients, new), strict=True))
    interpret(steps_source(cell), Launch((1, 1, 1), 128, 0), given)
    wide = [[row.astype(np.float64) for row in array] for array in (gates, states, d_next)]
    assert close(new, np.stack(numpy_step(cell)(*wide[:2])))
    d_gates, d_states = numpy_backward(cell)(*wide)
    assert close(gradients, np.stack([*d_gates, *d_states]))
