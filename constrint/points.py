"""Points all over the unit cube. NumPy's own generator shifts them: numpy.random.seed makes them the same again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def halton(count: int, dimensions: int) -> NDArray[np.float64]:
    """The first points of the Halton sequence, shifted at random [count, dimensions]."""
    points = np.array([_radical_inverses(count, base) for base in _primes(dimensions)]).transpose()
    return (points + _generator().random(dimensions)) % 1


def latin_hypercube(count: int, dimensions: int) -> NDArray[np.float64]:
    """Points of which each ``count``-th part of every dimension holds one [count, dimensions]."""
    rng = _generator()
    strata = np.array([rng.permutation(count) for _ in range(dimensions)]).transpose()
    return (strata + rng.random(strata.shape)) / max(1, count)


def _generator() -> np.random.Generator:
    return np.random.default_rng(np.random.randint(0, 2**31, size=4))


def _radical_inverses(count: int, base: int) -> NDArray[np.float64]:
    """The first numbers of the van der Corput sequence of a base: the digits of 1, 2, ... behind the point."""
    numbers = np.arange(1, count + 1)
    result, scale = np.zeros(count), 1.0
    while numbers.any():
        scale /= base
        result += scale * (numbers % base)
        numbers = numbers // base
    return result


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found
