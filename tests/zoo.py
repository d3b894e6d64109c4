"""Cells that between them use all of the language."""

from __future__ import annotations

from typing import Any

import sympy

from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import (
    Cell,
    Gate,
    equal,
    exp,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    softplus,
    sqrt,
    tanh,
    where,
)  # fmt: skip
from kernelgen.cells.language import abs as absolute


def everything(gate: Any, state: Any) -> dict[str, Any]:
    """Every construct of the language at least once."""
    shared = softplus(gate.a) - log_sigmoid(gate.b) / 3
    tested = where((gate.a > state.c) & ~(gate.b <= 0) | equal(state.n, 0), shared**3, -shared)
    return {
        "h": (1 - sigmoid(gate.a)) * tanh(tested) - 2 * state.h / (1 + state.n**2),
        "c": sqrt(1 + gate.b**2) + 1 / sqrt(2 + absolute(gate.a)) - sign(gate.b) * relu(state.c),
        "n": maximum(minimum(gate.a, gate.b), -0.5) - (gate.a - gate.b) * (state.c - 1) + minimum(state.h, shared),
        "m": exp(-absolute(shared)) * log(2 + shared**2) + (1.5 + state.n**2) ** 0.3 + where(gate.a < 1, state.m, 0.25),
    }


def constants(gate: Any, state: Any) -> dict[str, Any]:
    """New states that are the same, old, constant, or that scale by numbers given as expressions."""
    h = gate.a * sqrt(2) / 3 - sigmoid(2) * gate.b + sympy.pi * log(2) * log_sigmoid(-1)
    return {"h": h, "c": h, "n": 1.5, "m": state.m + where(gate.a > 0, 1, softplus(-2))}


def zoo() -> dict[str, Cell]:
    """The library's cells and two more, which between them use all of the language."""
    cells = {name: load_cell(name) for name in cell_names()}
    cells["gru"] = cells["gru"].with_gradient(recurrent_clip=0.25)
    cells["elman"] = cells["elman"].with_gradient(recurrent_cut=True)
    gates = (Gate("a"), Gate("b", bias=False))
    cells["everything"] = Cell("everything", "All", "none", ("h", "c", "n", "m"), gates, everything)
    cells["constants"] = Cell("constants", "Constants", "none", ("h", "c", "n", "m"), gates, constants)
    return cells
