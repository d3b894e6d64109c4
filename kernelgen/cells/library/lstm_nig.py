"""NIG of Greff et al.: the LSTM with peepholes, without an input gate: i = 1."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: forget f, candidate g, output o, peephole weights p_f, p_o."""
    f = sigmoid(gate.f + gate.p_f * state.c)
    c = f * state.c + tanh(gate.g)
    o = sigmoid(gate.o + gate.p_o * c)
    return {"h": o * tanh(c), "c": c}


CELL = Cell(
    name="lstm_nig",
    title="LSTM without input gate",
    paper="Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, arXiv:1503.04069, variant NIG",
    states=("h", "c"),
    gates=(
        Gate("f"),
        Gate("g"),
        Gate("o"),
        Gate("p_f", recurrent=False, input=False),
        Gate("p_o", recurrent=False, input=False),
    ),
    step=step,
    ranges={"f": (-2.0, 0.0), "p_f": (-0.2, 0.2), "p_o": (-0.2, 0.2)},
)
