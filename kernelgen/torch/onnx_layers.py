"""Layers as ONNX's LSTM, GRU and RNN nodes, while torch.onnx.export traces a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.torch.arguments import any_autocast
from kernelgen.torch.errors import ExportError
from kernelgen.torch.layers import LayerResult
from kernelgen.torch.parts import Parts
from kernelgen.torch.sequences import Own


@dataclass(frozen=True)
class Node:
    """An operator of ONNX. gates: which of torch.nn's each of its gates is, in its order. attributes: beside the sizes
    and the direction. activation: the one that is said for each direction, where there is a choice."""

    operator: str
    gates: tuple[int, ...]
    attributes: Mapping[str, Any]
    activation: str = ""


NODES = {
    "lstm": Node("LSTM", (0, 3, 1, 2), {}),  # i f g o as i o f c
    "gru": Node("GRU", (1, 0, 2), {"linear_before_reset": 1}),  # r z n as z r h
    "elman": Node("RNN", (0,), {}, "Tanh"),
    "elman_relu": Node("RNN", (0,), {}, "Relu"),
}
"""By our cell."""

DTYPES = (torch.float16, torch.float32, torch.float64)
"""What the operators take in every version."""


def node_of(parts: Parts, x: Tensor, own: Own, *, heads: int, projected: bool, every: bool) -> Node | None:
    """The operator for a module's layers over x, None where they have none: cells of other kinds, several heads, a
    projection, resets, every state, and what autocast would cast. every: whether all states are given out."""
    beyond = heads > 1 or projected or every or own.resets is not None or any_autocast()
    return None if beyond or x.dtype not in DTYPES else NODES.get(parts.key)


def run_nodes(
    node: Node,
    x: Tensor,
    initial: Sequence[Tensor] | None,
    lengths: Tensor | None,
    layers: Sequence[Sequence[Mapping[str, Tensor]]],
    dropout: float,
) -> list[LayerResult]:
    """The result of each layer over x [B, T, I], with the shapes that they have but no values: those come from what
    runs the ONNX model.

    initial: the states, each [L K, B, D], or None for zeros. lengths [B] int32 or None. layers: the parameters of each
    direction of each layer, by torch.nn's names. dropout: between layers. Raises ExportError where this PyTorch has no
    torch.onnx.ops.
    """
    make = getattr(getattr(torch.onnx, "ops", None), "symbolic_multi_out", None)
    if make is None:
        raise ExportError(
            f"PyTorch {torch.__version__} has no torch.onnx.ops.symbolic_multi_out, which makes ONNX's nodes; "
            "take a newer one"
        )
    h, results = x.transpose(0, 1), []
    for index, directions in enumerate(layers):
        if index and dropout:
            h = functional.dropout(h, dropout)
        count, (seq, batch, _) = len(directions), h.shape
        here = slice(index * count, (index + 1) * count)
        dim = directions[0]["weight_hh"].shape[1]
        w, r = (_joined(node, directions, (name,)) for name in ("weight_ih", "weight_hh"))
        b = _joined(node, directions, ("bias_ih", "bias_hh")) if "bias_ih" in directions[0] else None
        starts = [] if initial is None else [state[here] for state in initial]
        attributes = {"hidden_size": dim, "direction": "bidirectional" if count == 2 else "forward", **node.attributes}
        if node.activation:
            attributes["activations"] = [node.activation] * count
        ends = 2 if node.operator == "LSTM" else 1
        shapes = [(seq, count, batch, dim), *[(count, batch, dim)] * ends]
        inputs = [h, w, r, b, lengths, *starts]
        found, *last = make(node.operator, inputs, attributes, dtypes=[x.dtype] * len(shapes), shapes=shapes)
        h = found.transpose(1, 2).flatten(2)
        results.append(LayerResult(h.transpose(0, 1), tuple(last), None))
    return results


def _joined(node: Node, directions: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> Tensor:
    """[K, G D, ...]: of each direction the parameters by these names behind each other, gates in ONNX's order."""
    found = []
    for one in directions:
        gates = [one[name].chunk(len(node.gates)) for name in names]
        found.append(torch.cat([of_name[gate] for of_name in gates for gate in node.gates]))
    return torch.stack(found)
