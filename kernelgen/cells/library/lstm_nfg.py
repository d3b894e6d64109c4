"""NFG of Greff et al.: the LSTM with peepholes, without a forget gate: f = 1, as in 1997."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: input i, candidate g, output o, peephole weights p_i, p_o."""
    i = sigmoid(gate.i + gate.p_i * state.c)
    c = state.c + i * tanh(gate.g)
    o = sigmoid(gate.o + gate.p_o * c)
    return {"h": o * tanh(c), "c": c}


CELL = Cell(
    name="lstm_nfg",
    title="LSTM without forget gate",
    paper="Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, arXiv:1503.04069, variant NFG",
    states=("h", "c"),
    gates=(
        Gate("i"),
        Gate("g"),
        Gate("o"),
        Gate("p_i", recurrent=False, input=False),
        Gate("p_o", recurrent=False, input=False),
    ),
    step=step,
    ranges={"i": (-4.0, -3.0), "g": (-0.1, 0.1), "p_i": (-0.05, 0.05), "p_o": (-0.05, 0.05)},
    gain=0.5,
)
