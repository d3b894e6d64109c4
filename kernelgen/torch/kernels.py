"""Tensors to kernels: the arguments of a forward and of a backward kernel, in their layouts, for any engine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import InfeasibleError
from kernelgen.schedules.base import Direction
from kernelgen.shape import DTYPES, Shape
from kernelgen.torch.device import DeviceEngine


class Engine(Protocol):
    """What runs a kernel on the tensors of one type of device."""

    def run(self, cell: Cell, shape: Shape, direction: Direction, arguments: Mapping[str, Tensor | int | None]) -> None:
        """Run a kernel of that direction; arguments as FORWARD_ARGUMENTS or BACKWARD_ARGUMENTS of schedules.base say.

        Outputs are written in place. Raises InfeasibleError where no schedule has a kernel for the shape.
        """
        ...


ENGINES: dict[str, Engine] = {"cuda": DeviceEngine()}
"""The engine of each type of device; on others the reference runs."""

ALIGNMENT = 16
"""Bytes: kernels read and write vectors of up to that size."""

_warned: set[tuple[Any, ...]] = set()


def forward(
    cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, *, keep_gates: bool
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Run a forward kernel: what reference.forward returns, or None where there is none; then a warning says why."""
    engine, dtype = ENGINES.get(wx.device.type), _name(wx.dtype)
    if engine is None:
        return None
    batch, seq, _, heads, dim = wx.shape
    if dtype not in DTYPES:
        _warn(cell, (heads, dim, dtype), f"kernels compute in {' or '.join(DTYPES)}, not in {dtype}.")
        return None
    shape = Shape(batch, seq, heads, dim, dtype, "gates" if keep_gates else "states")
    states = wx.new_empty((len(cell.states), batch, seq, heads, dim))
    last = wx.new_empty((len(cell.states), batch, heads, dim))
    gates = wx.new_empty((len(cell.gates), batch, seq, heads, dim)) if keep_gates else None
    arguments = {"wx": _ready(wx), "r": _ready(r), "b": _ready(b), "initial": _ready(initial)}
    outputs = {"states": states, "last": last, "gates": gates, "batch": batch, "seq": seq}
    try:
        engine.run(cell, shape, "forward", arguments | outputs)
    except InfeasibleError as error:
        _warn(cell, (heads, dim, dtype), str(error))
        return None
    return states, last, gates


def backward(
    cell: Cell,
    r: Tensor,
    initial: Tensor | None,
    states: Tensor,
    gates: Tensor,
    d_states: Tensor | None,
    d_last: Tensor | None,
) -> tuple[Tensor, Sequence[Tensor], Tensor] | None:
    """Run a backward kernel: the gradients of wx [B, T, G_in, H, D], of every gate's sum (G tensors [B, T, H, D]) and
    of the initial states [S, B, H, D], or None where there is none; then a warning says why.

    Arguments as of reference.backward.
    """
    engine, dtype = ENGINES.get(states.device.type), _name(states.dtype)
    if engine is None or dtype not in DTYPES:  # the forward pass has warned of the dtype
        return None
    _, batch, seq, heads, dim = states.shape
    shape = Shape(batch, seq, heads, dim, dtype, "gates")
    inputs = cell.input_gates
    rest = [index for index in range(len(cell.gates)) if index not in inputs]
    d_wx = states.new_empty((batch, seq, len(inputs), heads, dim))
    d_rest = states.new_empty((len(rest), batch, seq, heads, dim)) if rest else None
    d_initial = states.new_empty((len(cell.states), batch, heads, dim))
    arguments = {
        "r": _ready(r),
        "initial": _ready(initial),
        "states": _ready(states),
        "gates": _ready(gates),
        "d_states": torch.zeros_like(states) if d_states is None else _ready(d_states),
        "d_last": _ready(d_last),
        "d_wx": d_wx if inputs else None,
        "d_rest": d_rest,
        "d_initial": d_initial,
        "batch": batch,
        "seq": seq,
    }
    try:
        engine.run(cell, shape, "backward", arguments)
    except InfeasibleError as error:
        _warn(cell, (heads, dim, dtype, "backward"), str(error))
        return None
    each: dict[int, Tensor] = dict(zip(inputs, d_wx.unbind(2), strict=True))
    if d_rest is not None:
        each |= dict(zip(rest, d_rest.unbind(), strict=True))
    return d_wx, [each[index] for index in range(len(cell.gates))], d_initial


def _ready(tensor: Tensor | None) -> Tensor | None:
    """The tensor as a kernel can read it: in C order, from an address that vectors may start at; None if empty."""
    if tensor is None or tensor.numel() == 0:
        return None
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _warn(cell: Cell, case: tuple[Any, ...], reason: str) -> None:
    """Say, once for each case, that the reference runs instead of a kernel."""
    if (cell.fingerprint, *case) in _warned:
        return
    _warned.add((cell.fingerprint, *case))
    warnings.warn(
        f"{cell.name} runs as a PyTorch loop, which is right but slow, for there is no kernel: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
