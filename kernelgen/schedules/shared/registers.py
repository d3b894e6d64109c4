"""The register model: a linear count of what lives in a thread's registers through a step.

What must live is counted exactly, by the schedule; how many registers the compiler spends on it beyond that (addresses,
values in flight, copies that keep pipelines busy) is learnt: ``benchmarks/registers.py`` compiles a random sample of
tilings with NVRTC, fits the coefficients and prints them as they stand in a schedule's model.yaml, together with how
well they predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from constrint import cdiv
from kernelgen.schedules.shared.numbers import Int

SCALE = 16
"""Coefficients are integers in units of 1/16 register, so that the model is exact on a Problem's integers."""

STANDS_FOR = {"sm_75": "sm_80", "sm_86": "sm_89", "sm_103a": "sm_100a"}
"""Architectures whose registers another's coefficients predict; unknown ones take NEAREST's."""

NEAREST = "sm_90a"

CONSTANT = "constant"
"""The coefficient that stands by itself."""


@dataclass(frozen=True)
class RegisterModel:
    """coefficients: for each architecture a constant and a coefficient for each count, by name, in 1/16 register."""

    coefficients: Mapping[str, Mapping[str, int]]

    def predict(self, counts: Mapping[str, Int], arch: str) -> Int:
        """Registers per thread, as the compiler will report them, for a target such as "sm_90a".

        counts: ints, or expressions over tile variables, by name. Raises KeyError for a count without a coefficient.
        """
        by_name = self.coefficients.get(STANDS_FOR.get(arch, arch), self.coefficients[NEAREST])
        total: Int = by_name[CONSTANT]
        for name, count in counts.items():
            total = total + by_name[name] * count
        return cdiv(total, SCALE)
