"""LSTM and GRU in the place of torch.nn's: the same parameters, initialisation and state_dict.

They are no subclasses of torch.nn's, which torch.compile does not trace.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.torch.arguments import require_tensors
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError
from kernelgen.torch.operator import rnn


class _Recurrent(nn.Module):  # type: ignore[misc]
    """Layers of one head of hidden_size units, dropout between them while training.

    Arguments are torch.nn.LSTM's, without bidirectional and proj_size. Parameters of layer k, with G gates:
    weight_ih_lk [G D, I] (I is D from the second layer on), weight_hh_lk [G D, D] and, with bias, bias_ih_lk and
    bias_hh_lk [G D], drawn uniformly from (-1 / sqrt(D), 1 / sqrt(D)) in that order.

    Raises ArgumentTypeError (a TypeError) and ArgumentError (a ValueError) where torch.nn raises these.
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
        _check_options(input_size, hidden_size, num_layers, bias, batch_first, dropout)
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

        Raises ArgumentTypeError for what is no tensor or no pair, ArgumentError (a ValueError) for an input of another
        rank or dtype, TensorShapeError (a RuntimeError) for tensors of another shape.
        """
        output, (h, c) = _layers(self, "lstm", ("h", "c"), input, hx)
        return output, (h, c)


class GRU(_Recurrent):
    """torch.nn.GRU over rnn(): one direction; its state_dict loads here and the other way round."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As torch.nn.GRU's: input [T, B, I], or [B, T, I] with batch_first, or [T, I]; hx [L, B, D].

        Raises as LSTM does.
        """
        output, (h,) = _layers(self, "gru", ("h",), input, None if hx is None else (hx,))
        return output, h


def _layers(
    module: Any, cell: str, names: tuple[str, ...], input: Tensor, hx: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All layers: the output of the last, and each state after the last step, [L, B, D]. names: those of the states."""
    _check_input(module, input)
    batched = input.dim() == 3
    x = input if batched and module.batch_first else input.transpose(0, 1) if batched else input.unsqueeze(0)
    if hx is not None:
        _check_states(module, names, hx, x.shape[0], batched, input.dtype)
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


def _check_options(
    input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool, dropout: float
) -> None:
    """Raise ArgumentTypeError or ArgumentError for what makes no module; warn of a dropout that does nothing."""
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if not isinstance(size, int):
            raise ArgumentTypeError(f"{name} must be an int, not {type(size).__name__}")
        if size < 1:
            raise ArgumentError(f"{name} must be at least 1, not {size}")
    for name, value in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(value, bool):
            raise ArgumentTypeError(f"{name} must be True or False, not {value!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise ArgumentError(f"dropout must be a number from 0 to 1, the share of zeros, not {dropout!r}")
    if dropout and num_layers == 1:
        warnings.warn(f"dropout={dropout} lies between layers, and there is only one", UserWarning, stacklevel=4)


def _check_input(module: Any, input: Any) -> None:
    """Raise what torch.nn raises for an input that does not fit."""
    if isinstance(input, nn.utils.rnn.PackedSequence):
        raise ArgumentError("the input must be a tensor, not a PackedSequence; pad the sequences")
    require_tensors(input=input)
    layout = "[B, T, I]" if module.batch_first else "[T, B, I]"
    if input.dim() not in (2, 3):
        raise ArgumentError(f"the input must be {layout} or [T, I], not of {input.dim()} axes")
    if input.shape[-1] != module.input_size:
        raise TensorShapeError(
            f"the input's last axis must be input_size = {module.input_size}, but it is {list(input.shape)}"
        )
    weights = module.weight_ih_l0.dtype
    if input.dtype != weights and not torch.is_autocast_enabled(input.device.type):
        raise ArgumentError(
            f"the input is {input.dtype}, but the weights are {weights}; convert it, input.to({weights}), or the "
            f"module, module.to({input.dtype})"
        )


def _check_states(module: Any, names: tuple[str, ...], hx: Any, batch: int, batched: bool, dtype: torch.dtype) -> None:
    """Raise what torch.nn raises for initial states that do not fit. names: those of the states; batch: B."""
    layout, wanted = "[L, B, D]", [module.num_layers, batch, module.hidden_size]
    if not batched:
        layout, wanted = "[L, D]", [module.num_layers, module.hidden_size]
    pair = f"hx must be the pair (h, c), each {layout} = {wanted}"
    if len(names) == 2 and isinstance(hx, Tensor):
        raise TensorShapeError(f"{pair}, not one tensor {list(hx.shape)}")
    if not isinstance(hx, (tuple, list)):
        raise ArgumentTypeError(f"{pair}, not {type(hx).__name__}")
    if len(hx) != len(names):
        raise TensorShapeError(f"{pair}, not {len(hx)} tensors")
    for name, state in zip(names, hx, strict=True):
        what = f"{name} of hx" if len(names) == 2 else "hx"
        require_tensors(**{what: state})
        if list(state.shape) != wanted:
            raise TensorShapeError(f"{what} must be {layout} = {wanted}, not {list(state.shape)}")
        if state.dtype != dtype and not torch.is_autocast_enabled(state.device.type):
            raise TensorShapeError(f"{what} is {state.dtype}, but the input is {dtype}; convert one of them")
