"""How many steps a layer of a wavefront is behind the one before, by the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

CHUNKS = (16, 32, 64, 128, 256, 512)
"""Steps of a chunk that are considered."""

PAYS = 0.85
"""The share of the time of layers one after another below which a wavefront pays: chunks round their states, and layers
that share a GPU slow each other down by what the model does not know."""

LAUNCH = 5.0
"""Microseconds from the end of a kernel to the beginning of one that waits for it, in another lane: so that waves of 64
and of 128 steps of 4 x 128 units, B = 64, differ as they do (docs/lab/wavefront.md)."""


@dataclass(frozen=True)
class OneWay:
    """Of a pass in one direction. step: microseconds of a step of the recurrence, with other layers' beside it. layer:
    of all steps of one that has the GPU, its product included. kernels: that run for a chunk of a layer, one after
    another. between: microseconds of the products among them, of so many steps. moved: microseconds that a step's
    arrays take through memory, which all layers share."""

    step: float
    layer: float
    kernels: int
    between: Callable[[int], float]
    moved: float = 0.0

    def chunk(self, steps: int) -> float:
        """Microseconds of a chunk of a layer."""
        return steps * self.step + self.kernels * LAUNCH + self.between(steps)


def chosen_chunk(seq: int, layers: int, directions: Sequence[OneWay]) -> int | None:
    """The chunk with which all directions take the least; None where layers one after another take little more.

    A wave takes as long as a chunk of a layer, or as what has the whole GPU to do, of all layers: products, and the way
    of the steps' arrays through memory; and there are as many waves as chunks, and one more for every further layer.
    """

    def wave(each: OneWay, steps: int) -> float:
        return max(each.chunk(steps), layers * (steps * each.moved + each.between(steps)))

    def time(steps: int) -> float:
        return (-(-seq // steps) + layers - 1) * sum(wave(each, steps) for each in directions)

    possible = [steps for steps in CHUNKS if steps < seq]
    if not possible:
        return None
    best = min(possible, key=time)
    one_after_another = layers * sum(each.layer for each in directions)
    return best if time(best) < PAYS * one_after_another else None
