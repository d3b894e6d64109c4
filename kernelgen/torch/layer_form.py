"""What is found out once about a module's layers over an input of one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernelgen.torch import passes
from kernelgen.torch.parts import Parts, summed_bias
from kernelgen.torch.recording import Pass


@dataclass(frozen=True)
class LayerForm:
    """All layers of a module over an input of one form.

    directions, heads: K directions of H heads each. batch, seq, dim: B, T and D. names: of a direction's parameters
    (parts.parameter_sizes). dropout: the share of zeros between layers. run: the forward pass of every layer, of K H
    heads. keep: "gates" for a backward pass, else "nothing".
    """

    parts: Parts
    layers: int
    directions: int
    heads: int
    dim: int
    names: tuple[str, ...]
    dropout: float
    batch: int
    seq: int
    keep: str
    run: Pass[Any]
    width: int = field(init=False)
    r_sizes: torch.Size = field(init=False)
    b_sizes: torch.Size = field(init=False)
    """What a direction's parameters must be: rows of weight_ih, weight_hh, and the sum of the biases."""
    all_summed: bool = field(init=False)
    """Whether each gate has an input, and both biases."""

    def __post_init__(self) -> None:
        wide, put = self.heads * self.dim, partial(object.__setattr__, self)
        put("width", self.parts.inputs * wide)
        put("r_sizes", torch.Size((self.parts.products * wide, self.dim)))
        put("all_summed", self.parts.runs == (("sum", 0, 0, self.parts.inputs),))
        put("b_sizes", torch.Size((self.parts.biases * wide,)))

    def bias(self, biases: Sequence[Tensor], like: Tensor) -> Tensor:
        """b [G_bias H D] of a direction."""
        if biases:
            return summed_bias(self.parts, self.heads * self.dim, *biases)
        return like.new_zeros(self.parts.biases * self.heads * self.dim)

    def backward_run(self, hidden: Tensor, r: Tensor, b: Tensor) -> Pass[Any]:
        """The backward pass of a layer."""
        sizes = torch.Size((1, self.batch, self.seq, self.directions * self.heads, self.dim))
        form, engine = (sizes, hidden.dtype, hidden.device), passes.engine_for(hidden)
        return passes.backward_pass(engine, form, r.dtype, b.dtype, again=False, options=(self.parts.key, False, None))
