"""sLSTM with exponential input gate, stabilised; gate order i, f, z, o.

States: h, the cell c, the normaliser n, the stabiliser m. With a = m + log sigmoid(f),

    m' = max(i, a)    c' = exp(a - m') c + exp(i - m') tanh(z)
    h' = sigmoid(o) c'/n'    n' = max(exp(a - m') n + exp(i - m'), 1)

and m' = i where n = 0, that is before the first input (c is 0 there too, so what it is multiplied by does not matter).
One of the two exponentials is always exp(0), so a single exp(-|i - a|) gives both. From zero states, or any with
n >= 1, n' is at least 1 without its max.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernelgen.cells.language import Cell, Gate, abs, equal, exp, log_sigmoid, maximum, sigmoid, tanh, where

_NEVER = -1e30  # a stabiliser that any input gate exceeds; finite, so that no infinity meets another


def step(gate: Any, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gates: input i, forget f, candidate z, output o."""
    return stabilised(gate, state, lambda n: maximum(n, 1))


def stabilised(gate: Any, state: Any, bounded: Callable[[Any], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The step with a normaliser that is ``bounded``."""
    a = where(equal(state.n, 0), _NEVER, state.m + log_sigmoid(gate.f))
    gap = gate.i - a
    decay = exp(-abs(gap))
    keep = where(gap >= 0, decay, 1)
    add = where(gap >= 0, 1, decay)
    c = keep * state.c + add * tanh(gate.z)
    n = bounded(keep * state.n + add)
    new = {"h": sigmoid(gate.o) * c / n, "c": c, "n": n, "m": maximum(gate.i, a)}
    return new, {"a": a, "gap": gap, "newer": gap >= 0, "decay": decay, "keep": keep, "add": add}


CELL = Cell(
    name="slstm",
    title="Scalar LSTM of xLSTM",
    paper="Beck et al. 2024, arXiv:2405.04517",
    states=("h", "c", "n", "m"),
    gates=(Gate("i"), Gate("f"), Gate("z"), Gate("o")),
    step=step,
    ranges={"n": (1.0, 2.0)},
)
