"""LSTM and GRU in the place of torch.nn's: the same parameters, initialisation and state_dict.

They are no subclasses of torch.nn's, which torch.compile does not trace.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.errors import ShapeError
from kernelgen.torch.operator import rnn


class _Recurrent(nn.Module):  # type: ignore[misc]
    """Layers of one head of hidden_size units, dropout between them while training.

    Arguments are torch.nn.LSTM's, without bidirectional and proj_size. Parameters of layer k, with G gates:
    weight_ih_lk [G D, I] (I is D from the second layer on), weight_hh_lk [G D, D] and, with bias, bias_ih_lk and
    bias_hh_lk [G D], drawn uniformly from (-1 / sqrt(D), 1 / sqrt(D)) in that order.
    """

    gates: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        reach = 1 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            sizes: dict[str, tuple[int, ...]] = {
                "weight_ih": (hidden_size if layer else input_size,),
                "weight_hh": (hidden_size,),
            }
            if bias:
                sizes |= {"bias_ih": (), "bias_hh": ()}
            for name, size in sizes.items():
                values = torch.empty((self.gates * hidden_size, *size), device=device, dtype=dtype)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(nn.init.uniform_(values, -reach, reach)))

    def extra_repr(self) -> str:
        """The sizes, for print()."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


class LSTM(_Recurrent):
    """torch.nn.LSTM over rnn(): one direction, no projection; its state_dict loads here and the other way round."""

    gates = 4

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As torch.nn.LSTM's: input [T, B, I], or [B, T, I] with batch_first, or [T, I]; hx (h, c), each [L, B, D].

        Raises ShapeError for a packed sequence and an input of another rank.
        """
        output, (h, c) = _layers(self, "lstm", input, hx)
        return output, (h, c)


class GRU(_Recurrent):
    """torch.nn.GRU over rnn(): one direction; its state_dict loads here and the other way round."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As torch.nn.GRU's: input [T, B, I], or [B, T, I] with batch_first, or [T, I]; hx [L, B, D].

        Raises ShapeError for a packed sequence and an input of another rank.
        """
        output, (h,) = _layers(self, "gru", input, None if hx is None else (hx,))
        return output, h


def _layers(module: Any, cell: str, input: Tensor, hx: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers: the output of the last, and each state after the last step, [L, B, D]."""
    if not isinstance(input, Tensor) or input.dim() not in (2, 3):
        found = f"{input.dim()} axes" if isinstance(input, Tensor) else type(input).__name__
        raise ShapeError(f"the input must be a tensor [T, B, I], [B, T, I] or [T, I], not {found}; pad sequences")
    batched = input.dim() == 3
    x = input if batched and module.batch_first else input.transpose(0, 1) if batched else input.unsqueeze(0)
    lasts = []
    for layer in range(module.num_layers):
        if layer and module.dropout:
            x = functional.dropout(x, module.dropout, module.training)
        wx = functional.linear(x, getattr(module, f"weight_ih_l{layer}")).unflatten(2, (-1, 1, module.hidden_size))
        r = getattr(module, f"weight_hh_l{layer}").unflatten(0, (-1, 1, module.hidden_size))
        states = None
        if hx is not None:
            states = torch.stack([(state if batched else state.unsqueeze(1))[layer] for state in hx]).unsqueeze(2)
        every, last = rnn(wx, r, _bias(module, cell, layer, r), states, cell, returns="hidden")
        x = every.squeeze(0).squeeze(2)
        lasts.append(last.squeeze(2))
    final = torch.stack(lasts, dim=1)
    final = final if batched else final.squeeze(2)
    output = x if batched and module.batch_first else x.transpose(0, 1) if batched else x.squeeze(0)
    return output, tuple(final.unbind())


def _bias(module: Any, cell: str, layer: int, r: Tensor) -> Tensor:
    """b as the cell has it: the two of torch.nn's are one, but for the candidate of the GRU, which has both."""
    gates, _, dim, _ = r.shape
    if not module.bias:
        return r.new_zeros((4, 1, dim))
    of_input, of_hidden = (getattr(module, f"bias_{part}_l{layer}").view(gates, 1, dim) for part in ("ih", "hh"))
    if cell == "lstm":
        return of_input + of_hidden
    return torch.cat([of_input[:2] + of_hidden[:2], of_input[2:], of_hidden[2:]])
