"""NOAF of Greff et al.: the LSTM with peepholes, h' = o c' without the tanh."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: input i, forget f, candidate g, output o, peephole weights p_i, p_f, p_o."""
    i = sigmoid(gate.i + gate.p_i * state.c)
    f = sigmoid(gate.f + gate.p_f * state.c)
    c = f * state.c + i * tanh(gate.g)
    o = sigmoid(gate.o + gate.p_o * c)
    return {"h": o * c, "c": c}


CELL = Cell(
    name="lstm_noaf",
    title="LSTM without output activation function",
    paper="Greff et al. 2017, doi:10.1109/TNNLS.2016.2582924, arXiv:1503.04069, variant NOAF",
    states=("h", "c"),
    gates=(
        Gate("i"),
        Gate("f"),
        Gate("g"),
        Gate("o"),
        Gate("p_i", recurrent=False, input=False),
        Gate("p_f", recurrent=False, input=False),
        Gate("p_o", recurrent=False, input=False),
    ),
    step=step,
    ranges={"f": (-2.0, 0.0), "p_i": (-0.2, 0.2), "p_f": (-0.2, 0.2), "p_o": (-0.2, 0.2)},
)
