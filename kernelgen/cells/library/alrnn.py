"""Almost-linear RNN: only some units pass a rectifier on their way into the product.

    z' = d z + R Phi(z) + Wx + b        Phi: relu for the units with p > 0, the identity for the others

h is Phi(z), so initial states should obey h = Phi(z). Which units are rectified is data, not architecture: p is set
and not learned (its gradient is zero). d is the diagonal of the paper's A.
"""

from __future__ import annotations

from typing import Any

from kernelgen.cells.language import Cell, Gate, relu, where


def step(gate: Any, state: Any) -> dict[str, Any]:
    """Gates: the sum a; diagonal d and choice p, a number per unit each."""
    z = gate.d * state.z + gate.a
    return {"h": where(gate.p > 0, relu(z), z), "z": z}


CELL = Cell(
    name="alrnn",
    title="Almost-linear RNN",
    paper="Brenner et al. 2024, arXiv:2410.14240",
    states=("h", "z"),
    gates=(Gate("a"), Gate("d", recurrent=False, input=False), Gate("p", recurrent=False, input=False)),
    step=step,
    ranges={"d": (-0.5, 0.5)},
    gain=0.5,
)
