"""GRU in the variant of PyTorch and cuDNN: the reset gate acts on R_n h + b_hn, after the product.

The candidate has two parts, and so two gates: n is Wx_n + b_in, g is R_n h + b_hn. The gate axis of Wx therefore
holds r, z, n (PyTorch's weight_ih order), that of R holds r, z, g (its weight_hh order), and b holds r, z, n, g, where
the biases of r and z are the sums of PyTorch's two.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: reset r, update z, candidate from the input n, candidate from the recurrence g."""
    z = sigmoid(gate.z)
    n = tanh(gate.n + sigmoid(gate.r) * gate.g)
    return {"h": (1 - z) * n + z * state.h}


CELL = Cell(
    name="gru",
    title="Gated recurrent unit",
    paper="Cho et al. 2014, arXiv:1406.1078; reset after the product: arXiv:1406.1078v1",
    states=("h",),
    gates=(Gate("r"), Gate("z"), Gate("n", recurrent=False), Gate("g", input=False)),
    step=step,
)
