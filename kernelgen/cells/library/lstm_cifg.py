"""CIFG of Greff et al.: the LSTM with peepholes, input and forget gate coupled: f = 1 - i.

With p_i = p_o = 0 it is the coupled LSTM without peepholes.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: input i, candidate g, output o, peephole weights p_i, p_o."""
    i = sigmoid(gate.i + gate.p_i * state.c)
    f = 1 - i
    c = f * state.c + i * tanh(gate.g)
    o = sigmoid(gate.o + gate.p_o * c)
    return {"h": o * tanh(c), "c": c}


CELL = Cell(
    name="lstm_cifg",
    title="LSTM with coupled input and forget gates",
    paper="Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, arXiv:1503.04069, variant CIFG",
    states=("h", "c"),
    gates=(
        Gate("i"),
        Gate("g"),
        Gate("o"),
        Gate("p_i", recurrent=False, input=False),
        Gate("p_o", recurrent=False, input=False),
    ),
    step=step,
    ranges={"p_i": (-0.2, 0.2), "p_o": (-0.2, 0.2)},
)
