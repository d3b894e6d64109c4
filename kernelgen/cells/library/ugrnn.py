"""Update gate RNN: one gate mixes the old h with a candidate, and none resets."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: update u, candidate c."""
    u = sigmoid(gate.u)
    return {"h": u * state.h + (1 - u) * tanh(gate.c)}


CELL = Cell(
    name="ugrnn",
    title="Update gate RNN",
    paper="Collins et al. 2017, arXiv:1611.09913",
    states=("h",),
    gates=(Gate("u"), Gate("c")),
    step=step,
)
