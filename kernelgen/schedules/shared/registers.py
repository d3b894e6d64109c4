"""The register model of the resident schedule: a linear count of what lives in registers through a step.

What must live is counted exactly; how many registers the compiler spends on it beyond that (addresses, values in
flight, copies that keep pipelines busy) is learnt: ``benchmarks/registers.py`` compiles a random sample of tilings
with NVRTC, fits the coefficients and prints the table below, together with how well it predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from constrint import cdiv

Int = Any
"""An int, or an expression over a Problem's variables."""

SCALE = 16
"""Coefficients are integers in units of 1/16 register, so that the model is exact on a Problem's integers."""


Coefficients = Mapping[str, tuple[int, tuple[int, ...]]]
"""For each architecture the constant and a coefficient for each count, in 1/16 register."""


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


# Fitted by benchmarks/registers.py.
FORWARD_COEFFICIENTS: Coefficients = {
    "sm_80": (154, (9, 63, 33, 20, 10, 4, 15, 4, 0, 34, 0, 11, 98, 16, 82, 124)),
    "sm_89": (169, (8, 75, 14, 20, 9, 5, 15, 1, 0, 31, 3, 13, 118, 17, 91, 102)),
    "sm_90a": (199, (10, 62, 44, 14, 9, 3, 20, 3, 3, 38, 2, 10, 105, 57, 109, 92)),
    "sm_100a": (191, (10, 56, 49, 24, 8, 8, 21, 2, 0, 37, 5, 12, 242, 0, 63, 76)),
    "sm_120": (219, (11, 46, 55, 27, 8, 7, 18, 9, 0, 35, 7, 11, 252, 0, 57, 64)),
}
STANDS_FOR = {"sm_86": "sm_89"}
"""Architectures whose registers another's coefficients predict; unknown ones take sm_90a's."""


def predicted_registers(counts: Any, coefficients: Coefficients, arch: str) -> Int:
    """Registers per thread, as the compiler will report them, for a target such as "sm_90a". counts: a dataclass of
    ints or expressions, with a coefficient for each field."""
    constant, weights = coefficients.get(STANDS_FOR.get(arch, arch), coefficients["sm_90a"])
    terms = [weight * count for weight, count in zip(weights, astuple(counts), strict=True)]
    return cdiv(constant + sum(terms[1:], start=terms[0]), SCALE)


@dataclass(frozen=True)
class BackwardCounts:
    """As ResidentCounts, for the backward schedule. hidden: words of both moving matrices that all groups load. sums:
    accumulators of the gates computed again, bias: of gates computed again or nothing but a bias. rest: sums over all
    steps, and what is to be added to them. states: gradients carried; inputs: words of all planes read; ready: what the
    early half of the pointwise step hands to the late one, gradients from outside included."""

    weights: Int
    fragments: Int
    loading: Int
    more_chains: Int
    hidden: Int
    sums: Int
    bias: Int
    rest: Int
    states: Int
    inputs: Int
    ready: Int
    elements: Int
    live: Int
    padded: Int
    copies: Int
    writes: Int


# Fitted in the same way, to 1,182 compiled tilings of five cells, half of which compute the gates again: more than nine
# in ten within 15 %.
BACKWARD_COEFFICIENTS: Coefficients = {
    "sm_80": (245, (19, 0, 135, 8, 9, 5, 15, 17, 0, 21, 9, 0, 12, 0, 102, 58)),
    "sm_89": (272, (17, 9, 90, 4, 9, 0, 20, 16, 0, 24, 1, 0, 19, 61, 127, 4)),
    "sm_90a": (255, (19, 0, 146, 9, 7, 0, 24, 15, 0, 7, 2, 0, 19, 1, 130, 66)),
    "sm_100a": (362, (20, 0, 129, 7, 5, 0, 20, 19, 0, 5, 12, 1, 7, 75, 85, 89)),
    "sm_120": (329, (15, 0, 27, 6, 17, 0, 29, 16, 0, 15, 4, 0, 11, 28, 87, 82)),
}
