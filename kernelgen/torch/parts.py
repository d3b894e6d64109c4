"""A cell's parameters in torch.nn's form: which gates a weight or a bias has, and how they become R and b of rnn()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.cells.registry import cell_of, register


@dataclass(frozen=True)
class Parts:
    """What a module needs of a cell, as plain values, which torch.compile traces.

    key: the cell's, for rnn(). states: their names. inputs, products: how many gates have an input, a recurrent
    product. bias_ih, bias_hh: how many gates each of torch.nn's two biases has. runs: how the two become one, in the
    order of the cell's gates: (what, first gate in bias_ih, first gate in bias_hh, number of gates), where what is
    "ih", "hh" or "sum". norms: how many gates with an input, in their order, a layer normalisation takes together:
    those that have a recurrent product, and those that have none.
    """

    key: str
    states: tuple[str, ...]
    inputs: int
    products: int
    bias_ih: int
    bias_hh: int
    runs: tuple[tuple[str, int, int, int], ...]
    norms: tuple[int, ...]

    @property
    def biases(self) -> int:
        """How many gates have a bias."""
        return sum(count for *_, count in self.runs)


def parts_of(cell: str | Cell) -> Parts:
    """The parts of a cell.

    A gate that has a bias has it in bias_hh if it has a recurrent product, and in bias_ih if it has an input or no
    such product: so torch.nn has the biases of its LSTM, GRU and RNN. Raises CellError for an unknown cell.
    """
    key = cell if isinstance(cell, str) else register(cell)
    definition = cell_of(key)
    kinds = []
    for gate in (definition.gates[index] for index in definition.bias_gates):
        outside = gate.input or not gate.recurrent
        kinds.append("hh" if not outside else "sum" if gate.recurrent else "ih")
    runs = []
    of_input = of_hidden = 0
    for kind, group in groupby(kinds):
        count = len(list(group))
        runs.append((kind, of_input, of_hidden, count))
        of_input += count if kind != "hh" else 0
        of_hidden += count if kind != "ih" else 0
    inputs, products = len(definition.input_gates), len(definition.recurrent_gates)
    together = groupby(definition.gates[index].recurrent for index in definition.input_gates)
    norms = tuple(len(list(group)) for _, group in together)
    return Parts(key, definition.states, inputs, products, of_input, of_hidden, tuple(runs), norms)


def parameter_sizes(
    parts: Parts, input_size: int, hidden_size: int, heads: int, proj_size: int, bias: bool
) -> dict[str, tuple[int, ...]]:
    """The parameters of one direction of one layer, by the first part of torch.nn's names, and their shapes."""
    sizes: dict[str, tuple[int, ...]] = {
        "weight_ih": (parts.inputs * hidden_size, input_size),
        "weight_hh": (parts.products * hidden_size, (proj_size or hidden_size) // heads),
    }
    if bias:
        sizes |= {"bias_ih": (parts.bias_ih * hidden_size,), "bias_hh": (parts.bias_hh * hidden_size,)}
    if proj_size:
        sizes["weight_hr"] = (proj_size, hidden_size)
    return sizes


def recurrent_weights(
    parts: Parts, heads: int, dim: int, directions: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """R [G_rec, K H, D, D] and b [G_bias, K H, D] for K directions, which are heads of one recurrence.

    directions: for each its parameters, by the names of ``parameter_sizes``. With a projection h = weight_hr m the
    recurrence is that of m, so R is weight_hh weight_hr.
    """
    r, b = [], []
    for one in directions:
        weights = one["weight_hh"]
        if "weight_hr" in one:
            weights = weights @ one["weight_hr"]
        r.append(weights.unflatten(0, (parts.products, heads, dim)))
        b.append(_bias(parts, heads, dim, one, r[0]))
    return (r[0], b[0]) if len(r) == 1 else (torch.cat(r, dim=1), torch.cat(b, dim=1))


def _bias(parts: Parts, heads: int, dim: int, one: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """b [G_bias, H, D] of one direction."""
    if "bias_ih" not in one:
        return like.new_zeros((parts.biases, heads, dim))
    return summed_bias(parts, heads * dim, one["bias_ih"], one["bias_hh"]).view(-1, heads, dim)


def summed_bias(parts: Parts, units: int, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """b [G_bias ``units``] from torch.nn's two biases."""
    if len(parts.runs) == 1 and parts.runs[0][0] == "sum":
        return bias_ih + bias_hh
    pieces = []
    for kind, i, h, count in parts.runs:
        of_input = bias_ih[i * units : (i + count) * units]
        of_hidden = bias_hh[h * units : (h + count) * units]
        pieces.append(of_input + of_hidden if kind == "sum" else of_input if kind == "ih" else of_hidden)
    return _joined(pieces, bias_ih)


def input_product(xs: Sequence[Tensor], weights: Sequence[Tensor], heads: int, dim: int) -> Tensor:
    """Wx [B, T, G_in, K H, D] of K directions: xs [B, T, I] and weights [G_in H D, I] for each."""
    products = [
        torch.nn.functional.linear(x, w).unflatten(-1, (-1, heads, dim)) for x, w in zip(xs, weights, strict=True)
    ]
    return products[0] if len(products) == 1 else torch.cat(products, dim=3)


def weight_gradients(parts: Parts, heads: int, directions: int, d_r: Tensor, d_b: Tensor) -> list[dict[str, Tensor]]:
    """The reverse of ``recurrent_weights`` without projections: for each direction the gradients of weight_hh, bias_ih
    and bias_hh, from those of R [G_rec, K H, D, D] and b [G_bias, K H, D]."""
    dim = d_r.shape[-1]
    found = []
    for direction in range(directions):
        here = slice(direction * heads, (direction + 1) * heads)
        of_input, of_hidden = bias_gradients(parts, heads * dim, d_b[:, here].reshape(-1))
        found.append({"weight_hh": d_r[:, here].reshape(-1, dim), "bias_ih": of_input, "bias_hh": of_hidden})
    return found


def bias_gradients(parts: Parts, units: int, d_b: Tensor) -> tuple[Tensor, Tensor]:
    """The reverse of ``summed_bias``."""
    of_input, of_hidden = [], []
    first = 0
    for kind, _, _, count in parts.runs:
        piece = d_b if len(parts.runs) == 1 else d_b[first * units : (first + count) * units]
        first += count
        if kind != "hh":
            of_input.append(piece)
        if kind != "ih":
            of_hidden.append(piece)
    return _joined(of_input, d_b), _joined(of_hidden, d_b)


def _joined(pieces: list[Tensor], like: Tensor) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces) if pieces else like.new_zeros((0,))
