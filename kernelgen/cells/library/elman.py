"""Elman's simple recurrent network with tanh."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """One gate, a."""
    return {"h": tanh(gate.a)}


CELL = Cell(
    name="elman",
    title="Elman network, tanh",
    paper="Elman 1990, doi:10.1207/s15516709cog1402_1",
    states=("h",),
    gates=(Gate("a"),),
    step=step,
)
