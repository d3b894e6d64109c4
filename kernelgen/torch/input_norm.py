"""Layer normalisation of the input's product, between that and the recurrence (Ba et al. 2016, arXiv:1607.06450).

With a = W_ih x_t, its G elements of every unit in each head,

    LN(a) = gain * (a - mean(a)) / sqrt(var(a) + 1e-5) + bias

is what the recurrence gets in the place of a. Mean and variance (that of the elements, not an estimate) are those of
one step of one sequence in one head, over all units and over the gates to which a recurrent product is added, as in the
paper's LSTM; gates that have none, such as a GRU's candidate, have a mean and a variance of their own, as in its GRU.
The paper normalises the recurrent product, too; that is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.torch.parts import Parts, input_product

WEIGHT, BIAS = "norm_weight_ih", "norm_bias_ih"
"""The first parts of the names of gain and bias, each [G D], rows by gate, head, unit."""


def norm_sizes(parts: Parts, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
    """The parameters of the norm of one direction of one layer, by the first part of their names, and their shapes."""
    sizes = (parts.inputs * hidden_size,)
    return {WEIGHT: sizes, BIAS: sizes} if bias else {WEIGHT: sizes}


def normalised_product(
    parts: Parts, xs: Sequence[Tensor], sets: Sequence[Mapping[str, Tensor]], heads: int, dim: int
) -> Tensor:
    """As parts.input_product, Wx [B, T, G_in, K H, D] of K directions, normalised where their parameters say so."""
    if WEIGHT not in sets[0]:
        return input_product(xs, [one["weight_ih"] for one in sets], heads, dim)
    made = [_normalised(parts, x, one, heads, dim) for x, one in zip(xs, sets, strict=True)]
    return made[0] if len(made) == 1 else torch.cat(made, dim=3)


def _normalised(parts: Parts, x: Tensor, one: Mapping[str, Tensor], heads: int, dim: int) -> Tensor:
    """Of one direction, [B, T, G_in, H, D]."""
    product = input_product([x], [one["weight_ih"]], heads, dim).transpose(2, 3)  # [B, T, H, G_in, D]
    groups = [functional.layer_norm(group, group.shape[-2:]) for group in product.split(parts.norms, 3)]
    whole = groups[0] if len(groups) == 1 else torch.cat(groups, 3)
    gain = one[WEIGHT].view(-1, heads, dim)
    found = whole.transpose(2, 3)
    return torch.addcmul(one[BIAS].view_as(gain), found, gain) if BIAS in one else found * gain
