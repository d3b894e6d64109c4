"""Elman's simple recurrent network with a rectifier. h is not bounded: scale R so that it does not grow."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, relu


def step(gate: Any, state: Any) -> dict[str, Any]:
    """One gate, a."""
    return {"h": relu(gate.a)}


CELL = Cell(
    name="elman_relu",
    title="Elman network, ReLU",
    paper="Elman 1990, doi:10.1207/s15516709cog1402_1; with rectifiers: Le et al. 2015, arXiv:1504.00941",
    states=("h",),
    gates=(Gate("a"),),
    step=step,
    ranges={"h": (0.0, 1.0)},
)
