"""LSTMCell, GRUCell and RNNCell in the place of torch.nn's: one step of any cell, one kernel on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kernelgen.cells.language import Cell
from kernelgen.torch import native
from kernelgen.torch.arguments import autocast_dtype, require_tensors
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError
from kernelgen.torch.exporting import Whole, tracing, untraced
from kernelgen.torch.input_norm import norm_sizes, normalised_product
from kernelgen.torch.module_checks import check_dtypes, check_heads, check_sizes, check_switches
from kernelgen.torch.modules import cell_for, described_cell
from kernelgen.torch.operator import step
from kernelgen.torch.parts import parameter_sizes, parts_of, recurrent_weights
from kernelgen.torch.recurrent import described, reset


class CellModule(Whole):
    """One step of H heads that together have D units.

    Parameters: weight_ih [G D, I], weight_hh [G D, D / H] and, with bias, bias_ih and bias_hh [G D]; rows go by gate,
    head, unit. They are drawn uniformly from (-1 / sqrt(D), 1 / sqrt(D)), in that order. layer_norm: as of
    recurrent.Recurrent, with norm_weight_ih and, with bias, norm_bias_ih [G D].
    """

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: Any,
        dtype: torch.dtype | None,
        heads: int,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_switches(layer_norm=layer_norm)
        check_heads(heads, hidden_size, 0)
        self.cell = cell
        self.input_size = int(input_size)
        self.hidden_size = int(hidden_size)
        self.bias = bias
        self.heads = int(heads)
        self.layer_norm = layer_norm
        self._parts = parts_of(cell)
        sizes = parameter_sizes(self._parts, input_size, hidden_size, heads, 0, True)
        sizes |= norm_sizes(self._parts, hidden_size, bias) if layer_norm else {}
        self._names = [name for name in sizes if bias or not name.startswith("bias")]
        for name, size in sizes.items():
            there = nn.Parameter(torch.empty(size, device=device, dtype=dtype)) if name in self._names else None
            self.register_parameter(name, there)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        reset(self)

    def extra_repr(self) -> str:
        """The sizes, and what is not as it is by default, for print()."""
        return described(self, {"bias": True, "heads": 1, "layer_norm": False})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle: a Cell of one's own gets its name in this process."""
        super().__setstate__(state)
        self._parts = parts_of(self.cell)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As torch.nn's: input [B, I] or [I]; hx None for zeros, or for each state [B, D] or [D]: a tensor for a cell
        with one state, else a tuple of them in the cell's order. Returns the new states in the form of hx.

        Raises ArgumentTypeError (a TypeError) for what is no tensor, ArgumentError (a ValueError) for another number of
        axes, TensorShapeError (a RuntimeError) for another size.
        """
        node = self._node(input, hx)
        if node is not None:
            return node
        require_tensors(input=input)
        if input.dim() not in (1, 2):
            raise ArgumentError(f"Expected input to be 1D or 2D, got {input.dim()}D instead: {list(input.shape)}")
        batched = input.dim() == 2
        states = None if hx is None else self._initial(hx, input, batched)
        x = input if batched else input.unsqueeze(0)
        self._check(x)
        parameters = {name: getattr(self, name) for name in self._names}
        flat = list(parameters.values())
        if not self.layer_norm and native.steps(self._parts, x, states, flat, self.heads):
            batch = None if states is None else [state.reshape(len(x), self.hidden_size) for state in states]
            results, views = native.step(self._parts, x, batch, flat), not batched
        else:
            results, views = self._step(x, states, parameters), True
        results = results if batched else [state.squeeze(0) for state in results]
        if views and (torch.is_grad_enabled() or tracing()):  # no views, so that they may be detached in place
            results = [state.clone() for state in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _step(self, x: Tensor, states: Sequence[Tensor] | None, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """The new states, each [B, D], after one step of x [B, I] by step()."""
        dim = self.hidden_size // self.heads
        r, b = recurrent_weights(self._parts, self.heads, dim, [parameters])
        wx = normalised_product(self._parts, [x.unsqueeze(1)], [parameters], self.heads, dim).squeeze(1)
        start = None if states is None else torch.stack([s.reshape(x.shape[0], self.heads, dim) for s in states])
        return list(step(wx, r, b, start, self._parts.key).flatten(2).unbind())

    @untraced
    def _check(self, x: Tensor) -> None:
        """Raise TensorShapeError for another input_size or dtype."""
        if x.shape[1] != self.input_size:
            raise TensorShapeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        check_dtypes(x, self.weight_ih.dtype, TensorShapeError)

    @untraced
    def _initial(self, hx: Any, input: Tensor, batched: bool) -> tuple[Tensor, ...]:
        """The states of hx, checked."""
        names = self._parts.states
        if len(names) == 1:
            hx = (hx,)
        elif isinstance(hx, Tensor) or not isinstance(hx, (tuple, list)):
            raise ArgumentTypeError(f"hx must be a tuple ({', '.join(names)}) of tensors, not {type(hx).__name__}")
        elif len(hx) != len(names):
            raise TensorShapeError(f"hx must be a tuple ({', '.join(names)}), not {len(hx)} tensors")
        batch = input.shape[0] if batched else 1
        for index, state in enumerate(hx):
            require_tensors(**{"hx" if len(names) == 1 else f"hx[{index}]": state})
            if state.dim() not in (1, 2):
                what = "hidden" if len(names) == 1 else f"hx[{index}]"
                raise ArgumentError(f"Expected {what} to be 1D or 2D, got {state.dim()}D instead: {list(state.shape)}")
            if state.dim() != input.dim():
                raise TensorShapeError(f"hidden{index} has {state.dim()} axes, but the input {input.dim()}")
            if state.shape[-1] != self.hidden_size:
                raise TensorShapeError(
                    f"hidden{index} has inconsistent hidden_size: got {state.shape[-1]}, expected {self.hidden_size}"
                )
            if batched and state.shape[0] != batch:
                raise TensorShapeError(
                    f"Input batch size {batch} doesn't match hidden{index} batch size {state.shape[0]}"
                )
            if state.dtype != input.dtype and autocast_dtype(input.device.type) is None:
                raise TensorShapeError(f"hidden{index} is {state.dtype}, but the input is {input.dtype}")
        return tuple(hx)


class LSTMCell(CellModule):
    """torch.nn.LSTMCell over step(), and heads: see CellModule."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        heads: int = 1,
        layer_norm: bool = False,
    ) -> None:
        super().__init__("lstm", input_size, hidden_size, bias, device, dtype, heads, layer_norm)


class GRUCell(CellModule):
    """torch.nn.GRUCell over step(), and heads: see CellModule."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        heads: int = 1,
        layer_norm: bool = False,
    ) -> None:
        super().__init__("gru", input_size, hidden_size, bias, device, dtype, heads, layer_norm)


class RNNCell(CellModule):
    """torch.nn.RNNCell over step(), or a step of any cell, and heads: see CellModule.

    nonlinearity and cell: as of RNN, whose errors it raises.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        cell: str | Cell | None = None,
        heads: int = 1,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(cell_for(nonlinearity, cell), input_size, hidden_size, bias, device, dtype, heads, layer_norm)
        self.nonlinearity = nonlinearity if cell is None else None

    def extra_repr(self) -> str:
        """As CellModule's, with the cell."""
        return super().extra_repr() + described_cell(self)
