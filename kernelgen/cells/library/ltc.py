"""Liquid time-constant network, one step of the paper's fused solver per input.

The state follows dh/dt = -(w + f) h + f A, with f = sigmoid(R h + Wx + b), a leak w = 1 / tau > 0 and a reversal
potential A per unit. With the step length as unit of time, the solver's step (half implicit, half explicit) is

    h' = (h + f A) / (1 + w + f)

Several solver steps per input would each need a product of their own. w is the softplus of a learned number.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, softplus


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: f; leak w and reversal potential A, a number per unit each."""
    f = sigmoid(gate.f)
    return {"h": (state.h + f * gate.A) / (1 + softplus(gate.w) + f)}


CELL = Cell(
    name="ltc",
    title="Liquid time-constant network",
    paper="Hasani et al. 2021, doi:10.1609/aaai.v35i9.16936, arXiv:2006.04439",
    states=("h",),
    gates=(Gate("f"), Gate("w", recurrent=False, input=False), Gate("A", recurrent=False, input=False)),
    step=step,
)
