"""Bilinear RNN, factorised: the input and the recurrent product multiply each other.

    h' = x (R h + b_g),  x = Wx + b_x

The paper's transition of rank at most D, h' = W0 ((W1 x) * (W2 h)) by elements, is this one for v = (W1 x) * (W2 h)
with R = W2 W0, and h = W0 v after the loop. Full rank would need a matrix for every input. The paper does without
biases: set them to 0.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: from the input x, from the recurrence g."""
    return {"h": gate.x * gate.g}


CELL = Cell(
    name="bilinear",
    title="Bilinear RNN, factorised",
    paper="Ebrahimi and Memisevic 2025, arXiv:2505.21749",
    states=("h",),
    gates=(Gate("x", recurrent=False), Gate("g", input=False)),
    step=step,
    gain=0.5,
)
