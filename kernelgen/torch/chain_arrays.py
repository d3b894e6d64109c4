"""What the arrays of a whole pass over a module's layers are called in its chain of kernels, and where they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernelgen.schedules.shared.moved_rows import MovedRows

APART = 256
"""Bytes: where arrays begin in the tensor of all that is kept, as allocations of PyTorch's do."""


@dataclass(frozen=True)
class Arrays:
    """Of L layers of K directions over an input of one form.

    batch, seq: B and T. states: how many the cell has. wide: H D. inputs, products, biases: how many gates have an
    input, a recurrent product, a bias. dim: D. itemsize: bytes of an element. names: of a direction's parameters.
    bias_apart: whether one bias is added by the product with x and the other by the recurrence, or their sum by that.
    time_major: of x and the output. begun: whether initial states are given. drops: whether elements are dropped
    between layers. learning: whether what a backward pass needs is kept. others, gates: the sizes of what a layer keeps
    beside h, None where it does not.

    The directions of a layer are heads of one recurrence, for which the second direction has its steps in reverse: so
    its arrays are [B, T, ..., K, H D], where what a layer reads and gives is [B, T, K H D] in the order of time.
    """

    layers: int
    directions: int
    batch: int
    seq: int
    states: int
    wide: int
    inputs: int
    products: int
    biases: int
    dim: int
    itemsize: int
    names: tuple[str, ...]
    bias_apart: bool
    time_major: bool
    begun: bool
    drops: bool
    learning: bool
    others: tuple[int, ...] | None
    gates: tuple[int, ...] | None

    @property
    def row_bytes(self) -> int:
        """Of H D elements."""
        return self.wide * self.itemsize

    @property
    def hidden_bytes(self) -> int:
        """Of h after every step of a layer."""
        return self.batch * self.seq * self.directions * self.row_bytes

    @property
    def states_bytes(self) -> int:
        """Of the states of a layer."""
        return self.states * self.batch * self.directions * self.row_bytes

    # ---- names ----

    def of_each(self, name: str, layer: int) -> list[str]:
        """The parameters of a layer by that name, of each direction."""
        return [f"{name}.{layer}.{direction}" for direction in range(self.directions)]

    def bias(self, layer: int) -> list[str]:
        """b of the recurrence of each direction."""
        return self.of_each("bias_hh" if self.bias_apart else "sum", layer)

    @property
    def parameters(self) -> tuple[str, ...]:
        """All parameters, in a module's order."""
        return tuple(f"{name}.{place}" for place in self._places for name in self.names)

    @property
    def sums(self) -> tuple[str, ...]:
        """b of each layer and direction, where it is none of the parameters."""
        return () if self.bias_apart else tuple(f"sum.{place}" for place in self._places)

    @property
    def _places(self) -> list[str]:
        return [f"{layer}.{direction}" for layer in range(self.layers) for direction in range(self.directions)]

    def hidden(self, layer: int) -> str:
        """h after every step, as the recurrence gives it."""
        if layer == self.layers - 1 and not self.hidden_to(time_major=self.time_major).changes:
            return "output"
        # A kernel that multiplies its input reads one while it writes the next.
        return f"hidden.{layer}" if self.learning else f"hidden.{layer % 2}"

    def rows(self, layer: int) -> str:
        """What a layer reads."""
        if layer == 0:
            return "x"
        if self.directions == 1 and not self.drops:
            return self.hidden(layer - 1)
        return f"rows.{layer}" if self.learning else "rows"

    def mask(self, layer: int) -> str:
        """Which elements of what a layer reads are not dropped."""
        return f"masks.{layer}"

    def r(self, layer: int) -> str:
        """R of all directions."""
        return f"r.{layer}" if self.directions > 1 else self.of_each("weight_hh", layer)[0]

    def b(self, layer: int) -> str:
        """b of all directions."""
        return f"b.{layer}" if self.directions > 1 else self.bias(layer)[0]

    def of_layer(self, layer: int, starts: str) -> dict[str, str]:
        """What both passes have of a layer beside parameters and h, by its name in kernels. starts: the initial states
        of all layers, or nothing."""
        found = {"initial": f"{starts}.{layer}"} if starts else {}
        if self.others is not None:
            found["others"] = f"others.{layer}"
        if self.gates is not None:
            found["gates"] = f"gates.{layer}"
        return found

    @property
    def same_biases(self) -> int:
        """How many biases of a direction have the gradient of its b."""
        return 2 if self.bias_apart else 1

    def made(self, layer: int) -> Sequence[str]:
        """The gradients of a layer's weights and of b, each of all directions in turn; of b once for each bias."""
        return [f"{name}.{layer}" for name in ("d_weight_ih", "d_weight_hh", "d_b")]

    # ---- places ----

    def kept(self) -> tuple[dict[str, tuple[str, int]], int]:
        """Where the arrays that are kept lie in the tensor "kept", and its bytes."""
        found: dict[str, tuple[str, int]] = {}
        at = 0
        for layer in range(self.layers):
            sizes = {} if self.hidden(layer) == "output" else {self.hidden(layer): self.hidden_bytes}
            for name, shape in (("others", self.others), ("gates", self.gates)):
                if shape is not None:
                    sizes[f"{name}.{layer}"] = math.prod(shape) * self.itemsize
            if self.directions > 1:
                sizes |= {self.r(layer): self.weights_together.nbytes, self.b(layer): self.biases_together.nbytes}
            if layer and self.rows(layer) != self.hidden(layer - 1):
                sizes[self.rows(layer)] = self.hidden_bytes
            for name, size in sizes.items():
                found[name] = ("kept", at)
                at += -(-size // APART) * APART
        return found, at

    def inside(self, *states: str) -> Mapping[str, tuple[str, int]]:
        """Where arrays lie inside others: what is kept, each layer's part of arrays of states [L, S, B, K H D], and the
        masks of what layers above the first read, bytes [L - 1, B, T, K H D]."""
        found = self.kept()[0] if self.learning else {}
        for whole in states:
            found |= {f"{whole}.{layer}": (whole, layer * self.states_bytes) for layer in range(self.layers)}
        mask = self.hidden_bytes // self.itemsize
        found |= {self.mask(layer): ("masks", (layer - 1) * mask) for layer in range(1, self.layers)}
        return found

    # ---- copies; where there is one direction, few of them change anything ----

    def moved(self, source: str, to: str, row_bytes: int, *, gates: int = 1, apart: bool = False) -> MovedRows:
        """A copy of rows along layers (l), states (s), directions (k), sequences (b), steps (t), ``gates`` (g) and
        biases that have one gradient (n)."""
        sizes = {
            "l": self.layers, "s": self.states, "k": self.directions, "b": self.batch, "t": self.seq, "g": gates,
            "n": self.same_biases,
        }  # fmt: skip
        reverses = {"k", "t"} <= set(source)
        return MovedRows({axis: sizes[axis] for axis in to}, source, to, row_bytes, reverses, apart)

    def hidden_from(self, *, time_major: bool) -> MovedRows:
        """What layers give, or its gradient, as the recurrence has it."""
        return self.moved("tbk" if time_major else "btk", "btk", self.row_bytes)

    def hidden_to(self, *, time_major: bool) -> MovedRows:
        """The other way."""
        return self.moved("btk", "tbk" if time_major else "btk", self.row_bytes)

    @property
    def inputs_together(self) -> MovedRows:
        """The products of each direction as Wx."""
        return self.moved("kbtg", "btgk", self.row_bytes, gates=self.inputs, apart=True)

    @property
    def inputs_in_time(self) -> MovedRows:
        """The gradient of Wx as rows that belong to those of x, all gates of the first direction first."""
        return self.moved("btgk", "btkg", self.row_bytes, gates=self.inputs)

    @property
    def weights_together(self) -> MovedRows:
        """Weights of each direction as R."""
        return self.moved("kg", "gk", self.row_bytes * self.dim, gates=self.products, apart=True)

    @property
    def biases_together(self) -> MovedRows:
        """Biases of each direction as b."""
        return self.moved("kg", "gk", self.row_bytes, gates=self.biases, apart=True)

    @property
    def weights_apart(self) -> MovedRows:
        """The gradient of R as those of each direction's weights."""
        return self.moved("gk", "kg", self.row_bytes * self.dim, gates=self.products)

    @property
    def biases_apart(self) -> MovedRows:
        """The gradient of b as that of each direction's biases."""
        return self.moved("gk", "nkg", self.row_bytes, gates=self.biases)

    @property
    def states_in(self) -> MovedRows:
        """States as a module takes them, [L, K, S, B, H D], as recurrences do."""
        return self.moved("lksb", "lsbk", self.row_bytes)

    @property
    def states_out(self) -> MovedRows:
        """States as recurrences give them as a module does, [S, L, K, B, H D]."""
        return self.moved("lsbk", "slkb", self.row_bytes)
