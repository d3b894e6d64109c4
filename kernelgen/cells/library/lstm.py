"""LSTM with forget gate, no peepholes; gate order i, f, g, o as in PyTorch and cuDNN."""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: input i, forget f, candidate g, output o."""
    c = sigmoid(gate.f) * state.c + sigmoid(gate.i) * tanh(gate.g)
    return {"h": sigmoid(gate.o) * tanh(c), "c": c}


CELL = Cell(
    name="lstm",
    title="Long short-term memory",
    paper="Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; forget gate: Gers et al. 2000, "
    "doi:10.1162/089976600300015015",
    states=("h", "c"),
    gates=(Gate("i"), Gate("f"), Gate("g"), Gate("o")),
    step=step,
)
