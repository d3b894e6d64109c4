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

    weights: words of R kept. fragments: pieces of R met in a step, kept or loaded; loading: 1 where some are loaded.
    accumulators: of one chain; more_chains: of the further chains. hidden: words of h that all groups load. bias:
    biases. states: float states other than h. inputs: words of Wx. elements: pointwise elements. saved_gates: gate
    values staged. live: temporaries of the pointwise step. split: 1 where K is split. padded: 1 where the head
    dimension is padded. copies, writes: transfers a step, each with an address in either memory.
    """

    weights: Int
    fragments: Int
    loading: Int
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
    copies: Int
    writes: Int


# Constant first, then a coefficient for each count, in 1/16 register. Fitted by benchmarks/registers.py.
COEFFICIENTS: dict[str, tuple[int, tuple[int, ...]]] = {
    "sm_80": (146, (9, 60, 42, 24, 9, 6, 16, 6, 0, 28, 0, 6, 104, 0, 79, 124)),
    "sm_90a": (187, (10, 68, 49, 14, 9, 3, 18, 3, 0, 34, 3, 11, 101, 56, 138, 86)),
    "sm_120": (262, (11, 47, 40, 24, 8, 8, 13, 7, 4, 35, 8, 10, 235, 0, 64, 61)),
}


def predicted_registers(counts: ResidentCounts, arch: str) -> Int:
    """Registers per thread, as the compiler will report them, for a target such as "sm_90a"."""
    constant, coefficients = COEFFICIENTS.get(arch, COEFFICIENTS["sm_80"])
    terms = [weight * count for weight, count in zip(coefficients, astuple(counts), strict=True)]
    return cdiv(constant + sum(terms[1:], start=terms[0]), SCALE)
