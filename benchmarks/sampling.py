"""What the benchmarks that fit the models share: random tilings worth knowing about, and non-negative least squares."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from kernelgen.program.tiling import Tiling
from kernelgen.tuning.plan import spread

Array = npt.NDArray[np.float64]


def drawn(tilings: list[Tiling], count: int, draw: random.Random) -> list[Tiling]:
    """About ``count`` of a plan's tilings: half are those that tuning would compile first, which must be predicted
    best, half random ones, three in four of these among the model's best hundred."""
    chosen = []
    for _ in range(max(1, count // 2)):
        among = tilings[:100] if draw.random() < 0.75 else tilings
        chosen.append(draw.choice(among))
    return chosen + spread(tilings)[: count // 2]


def non_negative(matrix: Array, target: Array) -> Array:
    """Least squares with coefficients of at least 0: drop the most negative one until there is none."""
    active = list(range(matrix.shape[1]))
    while True:
        solution = np.linalg.lstsq(matrix[:, active], target, rcond=None)[0]
        if (solution >= 0).all():
            result = np.zeros(matrix.shape[1])
            result[active] = solution
            return result
        active.pop(int(solution.argmin()))
