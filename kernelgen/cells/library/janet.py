"""JANET: the LSTM with nothing but its forget gate ("just another network").

The paper takes beta = 1 off the gate's sum before what it lets in. h and c are the same there.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: forget s, candidate c."""
    candidate = tanh(gate.c)
    return {"h": sigmoid(gate.s) * state.h + (1 - sigmoid(gate.s - 1)) * candidate}


CELL = Cell(
    name="janet",
    title="Forget-gate-only LSTM",
    paper="van der Westhuizen and Lasenby 2018, arXiv:1804.04849",
    states=("h",),
    gates=(Gate("s"), Gate("c")),
    step=step,
)
