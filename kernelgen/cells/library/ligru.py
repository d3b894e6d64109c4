"""Li-GRU: a GRU without reset gate and with a rectifier.

The paper normalises Wx over the batch. That happens before the loop and is the caller's business.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, relu, sigmoid


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: update z, candidate n."""
    z = sigmoid(gate.z)
    return {"h": z * state.h + (1 - z) * relu(gate.n)}


CELL = Cell(
    name="ligru",
    title="Light GRU, without normalisation",
    paper="Ravanelli et al. 2018, arXiv:1803.10225",
    states=("h",),
    gates=(Gate("z"), Gate("n")),
    step=step,
    ranges={"h": (0.0, 1.0)},
)
