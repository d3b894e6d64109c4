"""The Triton text of a cell's step against the NumPy text, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zoo import zoo

from kernelgen.cells.language import Cell
from kernelgen.emit.numpy import numpy_backward, numpy_step
from kernelgen.emit.triton import SplitStepText, StepText, helper_functions
from kernelgen.emit.triton_text import Lines, Options, module, signature
from kernelgen.program.launch import Launch
from kernelgen.program.source import Source
from kernelgen.verify.interpreter import interpret

pytest.importorskip("triton", reason="Triton is not installed, so its text is not run")

pytestmark = pytest.mark.unit

COUNT = 256
ARGUMENTS = ("gates", "states", "d_states", "d_initial", "d_wx", "last")
"""Names of float arrays; the last three are written: the gradients, those of the step in two parts, the new states."""


def steps_source(cell: Cell) -> Source:
    """A kernel that runs the step and the backward step of COUNT units, the latter as a whole and in two parts."""
    forward, backward, split = StepText(cell), StepText(cell, backward=True), SplitStepText(cell)
    names = {forward: "step", backward: "whole_backward_step", split: "backward_step"}
    out = Lines()
    out.add("unit = tl.arange(0, BLOCK)")
    for name, array, members in (
        ("gate", "gates", [gate.name for gate in cell.gates]),
        ("state", "states", cell.states),
        ("d_next", "d_states", cell.states),
    ):
        out.add(*(f"{name}_{each} = tl.load({array} + {i} * BLOCK + unit)" for i, each in enumerate(members)))
    if split.ready:
        out.add(f"{', '.join(split.ready)}, = prepare_step({', '.join(split.hoisted_parameters)})")
    for step, array in ((forward, "last"), (backward, "d_initial"), (split, "d_wx")):
        results = ", ".join(step.results) + ("," if len(step.results) == 1 else "")
        out.add(f"{results} = {names[step]}({', '.join(step.parameters)})")
        for index, result in enumerate(step.results):
            out.add(f"tl.store({array} + {index} * BLOCK + unit, {result} + tl.zeros((BLOCK,), dtype=tl.float32))")
    kernel = signature("steps", ARGUMENTS, ("BLOCK",)) + out.text()
    whole = backward.text().replace("def backward_step", "def whole_backward_step")
    used = forward.used | backward.used | split.used
    parts = [helper_functions(used, "sm_90a", "float32"), forward.text(), whole, split.text(), kernel]
    text = module("Steps.", parts) + Options({"BLOCK": COUNT}, 4, 1, 0).text("float32")
    return Source(text, "steps", "sm_90a", ARGUMENTS, ARGUMENTS[3:], "triton")


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
    in_parts = gradients.copy()
    given = dict(zip(ARGUMENTS, (gates, states, d_next, gradients, in_parts, new), strict=True))
    interpret(steps_source(cell), Launch((1, 1, 1), 128, 0), given)
    wide = [[row.astype(np.float64) for row in array] for array in (gates, states, d_next)]
    assert close(new, np.stack(numpy_step(cell)(*wide[:2])))
    d_gates, d_states = numpy_backward(cell)(*wide)
    for made in (gradients, in_parts):
        assert close(made, np.stack([*d_gates, *d_states]))
