"""LSTM with peepholes: i and f see the old cell state c, o sees the new one, each through one weight per unit.

This is the vanilla LSTM of Greff et al. A peephole weight is a gate that has a bias and nothing else.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: input i, forget f, candidate g, output o; p_i, p_f, p_o are the peephole weights, one per unit."""
    i = sigmoid(gate.i + gate.p_i * state.c)
    f = sigmoid(gate.f + gate.p_f * state.c)
    c = f * state.c + i * tanh(gate.g)
    o = sigmoid(gate.o + gate.p_o * c)
    return {"h": o * tanh(c), "c": c}


CELL = Cell(
    name="lstm_peephole",
    title="LSTM with peepholes",
    paper="Gers and Schmidhuber 2000, doi:10.1109/IJCNN.2000.861302; equations: Greff et al. 2017, arXiv:1503.04069",
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
