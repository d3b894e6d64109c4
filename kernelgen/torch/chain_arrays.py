"""What the arrays of a whole pass over a module's layers are called in its chain of kernels, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

APART = 256
"""Bytes: where arrays begin in the tensor of all that is kept, as allocations of PyTorch's do."""


@dataclass(frozen=True)
class Arrays:
    """Of L layers over an input of one form.

    batch, seq: B and T. states: how many the cell has. wide: H D. width: rows of weight_ih. itemsize: bytes of an
    element. names: of a layer's parameters. apart: whether one bias is added by the product with x and the other by
    the recurrence, or their sum by that. time_major: of x and the output. begun: whether initial states are given.
    learning: whether what a backward pass needs is kept. others, gates: the sizes of what a layer keeps beside h, None
    where it does not.
    """

    layers: int
    batch: int
    seq: int
    states: int
    wide: int
    width: int
    itemsize: int
    names: tuple[str, ...]
    apart: bool
    time_major: bool
    begun: bool
    learning: bool
    others: tuple[int, ...] | None
    gates: tuple[int, ...] | None

    @property
    def steps(self) -> int:
        """Of all sequences."""
        return self.batch * self.seq

    @property
    def hidden_bytes(self) -> int:
        """Of h after every step of a layer."""
        return self.steps * self.wide * self.itemsize

    @property
    def state_bytes(self) -> int:
        """Of one state of a layer."""
        return self.batch * self.wide * self.itemsize

    def hidden(self, layer: int) -> str:
        """h after every step, [B, T, H D]."""
        if layer == self.layers - 1 and not self.time_major:
            return "output"
        # A kernel that multiplies its input reads one while it writes the next.
        return f"hidden.{layer}" if self.learning else f"hidden.{layer % 2}"

    def rows(self, layer: int) -> str:
        """What a layer reads."""
        return self.hidden(layer - 1) if layer else "x"

    @property
    def parameters(self) -> tuple[str, ...]:
        """All parameters, in a module's order; then b of each layer, where that is their sum."""
        known = [f"{name}.{layer}" for layer in range(self.layers) for name in self.names]
        return (*known, *self.sums)

    @property
    def sums(self) -> tuple[str, ...]:
        """b of each layer, where it is none of the parameters."""
        return () if self.apart else tuple(f"b.{layer}" for layer in range(self.layers))

    def bias(self, layer: int) -> str:
        """b of the recurrence."""
        return f"bias_hh.{layer}" if self.apart else f"b.{layer}"

    def kept(self) -> tuple[dict[str, tuple[str, int]], int]:
        """Where the arrays that are kept lie in the tensor "kept", and its bytes."""
        found: dict[str, tuple[str, int]] = {}
        at = 0
        for layer in range(self.layers):
            sizes = {} if self.hidden(layer) == "output" else {self.hidden(layer): self.hidden_bytes}
            for name, shape in (("others", self.others), ("gates", self.gates)):
                if shape is not None:
                    sizes[f"{name}.{layer}"] = math.prod(shape) * self.itemsize
            for name, size in sizes.items():
                found[name] = ("kept", at)
                at += -(-size // APART) * APART
        return found, at

    def saved(self, layer: int) -> dict[str, str]:
        """What both passes have of a layer beside its parameters and h, by its name in kernels."""
        found = {"initial": f"starts.{layer}"} if self.begun else {}
        if self.others is not None:
            found["others"] = f"others.{layer}"
        if self.gates is not None:
            found["gates"] = f"gates.{layer}"
        return found

    def inside(self, *states: str) -> Mapping[str, tuple[str, int]]:
        """Where arrays lie inside others: what is kept, and each layer's part of arrays of states [L, S, B, H D]."""
        found = self.kept()[0] if self.learning else {}
        for whole in (*states, *(["starts"] if self.begun else [])):
            size = self.states * self.state_bytes
            found |= {f"{whole}.{layer}": (whole, layer * size) for layer in range(self.layers)}
        return found

    def made(self, layer: int) -> Sequence[str]:
        """The gradients of a layer's weights and of b."""
        return [f"{name}.{layer}" for name in ("d_weight_ih", "d_weight_hh", "d_b")]
