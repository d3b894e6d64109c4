"""Minimal gated unit: a single gate f, which forgets and resets.

As in PyTorch's GRU it resets the recurrent product, g = R h, where the paper resets h before the product.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: forget f, candidate from the input n, candidate from the recurrence g."""
    f = sigmoid(gate.f)
    return {"h": (1 - f) * state.h + f * tanh(gate.n + f * gate.g)}


CELL = Cell(
    name="mgu",
    title="Minimal gated unit",
    paper="Zhou et al. 2016, arXiv:1603.09420; reset after the product",
    states=("h",),
    gates=(Gate("f"), Gate("n", recurrent=False), Gate("g", input=False)),
    step=step,
)
