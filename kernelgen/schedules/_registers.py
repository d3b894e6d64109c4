"""The register model of the resident schedule: a linear count of what lives in registers through a step.

What must live is counted exactly; how many registers the compiler spends on it beyond that (addresses, values in
flight, copies that keep pipelines busy) is learnt: ``benchmarks/registers.py`` compiles a random sample of tilings
with NVRTC, fits the coefficients and prints the table below, together with how well it predicts.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from constrint import cdiv

Int = Any
"""An int, or an expression over a Problem's variables."""

SCALE = 16
"""Coefficients are integers in units of 1/16 register, so that the model is exact on a Problem's integers."""


@dataclass(frozen=True)
class ResidentCounts:
    """Values per thread (ints, or expressions over tile variables).

    weights: words of R. accumulators: of one chain; more_chains: of the further chains. hidden: words of h that all
    groups load. bias: biases. states: float states other than h. inputs: words of Wx. elements: pointwise elements.
    saved_gates: gate values kept for storing. live: temporaries of the pointwise step. split: 1 where K is split.
    padded: 1 where the head dimension is padded. narrow: 1 where rows are not multiples of 16 bytes.
    """

    weights: Int
    accumulators: Int
    more_chains: Int
    hidden: Int
    bias: Int
    states: Int
    inputs: Int
    elements: Int
    saved_gates: Int
    live: Int
    split: Int
    padded: Int
    narrow: Int


# Constant first, then a coefficient for each count, in 1/16 register. Fitted by benchmarks/registers.py.
COEFFICIENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "sm_80": (257, (15, 8, 10, 10, 35, 13, 34, 56, 12, 11, 221, 45, 268)),
}


def predicted_registers(counts: ResidentCounts, arch: str) -> Int:
    """Registers per thread, as the compiler will report them, for a target such as "sm_90a"."""
    constant, coefficients = COEFFICIENTS.get(arch, COEFFICIENTS["sm_80"])
    terms = [weight * count for weight, count in zip(coefficients, astuple(counts), strict=True)]
    return cdiv(constant + sum(terms[1:], start=terms[0]), SCALE)
