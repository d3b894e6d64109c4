"""sLSTM as xLSTM's published models run it: the normaliser n has no bound; gate order i, f, z, o.

From zero states, or any with n >= 1, it is slstm, since n' is at least 1 by itself there. From a state with n between 0
and 1 its n' may be smaller than 1, and h larger.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate
from kernelgen.cells.library.slstm import stabilised


def step(gate: Any, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gates: input i, forget f, candidate z, output o."""
    return stabilised(gate, state, lambda n: n)


CELL = Cell(
    name="slstm_xlstm",
    title="Scalar LSTM of xLSTM, normaliser without bound",
    paper="Beck et al. 2024, arXiv:2405.04517",
    states=("h", "c", "n", "m"),
    gates=(Gate("i"), Gate("f"), Gate("z"), Gate("o")),
    step=step,
    ranges={"n": (0.5, 2.0)},
)
