"""Closed-form continuous-time network, each head one layer, time between inputs 1.

    h' = sigmoid(-f) g + (1 - sigmoid(-f)) k

Inputs at other times t are had by scaling the parts of f by t. A shared backbone before the heads would be a second
recurrent product.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: the heads f, g, k (the paper's h, which is the state here)."""
    early = sigmoid(-gate.f)
    return {"h": early * tanh(gate.g) + (1 - early) * tanh(gate.k)}


CELL = Cell(
    name="cfc",
    title="Closed-form continuous-time network",
    paper="Hasani et al. 2022, doi:10.1038/s42256-022-00556-7, arXiv:2106.13898",
    states=("h",),
    gates=(Gate("f"), Gate("g"), Gate("k")),
    step=step,
)
