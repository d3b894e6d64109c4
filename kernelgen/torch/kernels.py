"""Tensors to kernels: the arguments of every kernel, in their layouts, for any engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import InfeasibleError
from kernelgen.schedules.base import Direction
from kernelgen.shape import DTYPES, Shape
from kernelgen.torch.device import DeviceEngine

Kind = Direction | Literal["parameters"]
"""A schedule's kernel of that direction, or the one that makes the gradients of R and b."""


class Kernel(Protocol):
    """A kernel, ready to run."""

    @property
    def parts(self) -> int:
        """How many partial results the kernel of the gradients of R and b leaves; 1 of any other."""
        ...

    def run(self, arguments: Mapping[str, Tensor | int | None]) -> None:
        """Run it; arguments by the names of FORWARD_ARGUMENTS and BACKWARD_ARGUMENTS of schedules.base, and ARGUMENTS
        of parameter_gradients. Outputs are written in place."""
        ...


class Engine(Protocol):
    """What runs kernels on the tensors of one type of device."""

    def kernel(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> Kernel:
        """The kernel for a cell and a shape on a device, by its index (-1 for the CPU).

        Raises InfeasibleError where no schedule has a kernel for the shape.
        """
        ...


ENGINES: dict[str, Engine] = {"cuda": DeviceEngine()}
"""The engine of each type of device; on others the reference runs."""

ALIGNMENT = 16
"""Bytes: kernels read and write vectors of up to that size."""

_warned: set[tuple[Any, ...]] = set()
_shape = lru_cache(maxsize=4096)(Shape)


@dataclass(frozen=True)
class Saved:
    """What a forward pass left for the backward one.

    states [K, B, T, H, D]: h, or every state; others [S - K, B, T, H, D]: the rest, None where there is none.
    gates(first, steps): every gate's sum [G, B, steps, H, D] of the steps first .. first + steps - 1. span: how many
    steps to ask for at a time.
    """

    r: Tensor
    initial: Tensor | None
    states: Tensor
    others: Tensor | None
    gates: Callable[[int, int], Tensor]
    span: int


def forward(
    cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, *, known: int, keep: str
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None] | None:
    """Run a forward kernel, or return None where there is none; then a warning says why.

    wx, r, b, initial as of reference.forward. known: how many states to give out, 1 (h) or all. keep: "nothing",
    "states" (the others too) or "gates" (the others and the gates' sums), for a backward pass. Returns states
    [known, B, T, H, D], last [S, B, H, D], others [S - known, B, T, H, D] and gates [G, B, T, H, D], the last two None
    where there is none to keep.
    """
    engine, dtype = ENGINES.get(wx.device.type), _name(wx.dtype)
    if engine is None:
        return None
    batch, seq, _, heads, dim = wx.shape
    if dtype not in DTYPES:
        _warn(cell, (heads, dim, dtype), f"kernels compute in {' or '.join(DTYPES)}, not in {dtype}.")
        return None
    count = len(cell.states)
    apart = known < count and keep != "nothing"
    save = "gates" if keep == "gates" else "states" if apart or known == count else "hidden"
    states = wx.new_empty((known, batch, seq, heads, dim))
    others = wx.new_empty((count - known, batch, seq, heads, dim)) if apart else None
    last = wx.new_empty((count, batch, heads, dim))
    gates = wx.new_empty((len(cell.gates), batch, seq, heads, dim)) if keep == "gates" else None
    arguments = {"wx": _ready(wx), "r": _ready(r), "b": _ready(b), "initial": _ready(initial)}
    outputs = {"states": states, "others": others, "last": last, "gates": gates, "batch": batch, "seq": seq}
    try:
        kernel = engine.kernel(cell, _shape(batch, seq, heads, dim, dtype, save), "forward", wx.get_device())
        kernel.run(arguments | outputs)
    except InfeasibleError as error:
        _warn(cell, (heads, dim, dtype), str(error))
        return None
    return states, last, others, gates


def backward(
    cell: Cell, saved: Saved, d_states: Tensor | None, d_last: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Run a backward kernel, or return None where there is none; then a warning says why.

    d_states [K, B, T, H, D], as many as saved.states, and d_last [S, B, H, D]: the gradients of states and last, None
    for zeros. Returns the gradients of wx [B, T, G_in, H, D], of the sums of the gates without an input
    [G - G_in, B, T, H, D] (None where every gate has one) and of the initial states [S, B, H, D].
    """
    states = saved.states
    engine, dtype = ENGINES.get(states.device.type), _name(states.dtype)
    if engine is None or dtype not in DTYPES:  # the forward pass has warned of the dtype
        return None
    known, batch, seq, heads, dim = states.shape
    shape = _shape(batch, seq, heads, dim, dtype, "gates" if known == len(cell.states) else "hidden")
    inputs, rest = len(cell.input_gates), len(cell.rest_gates)
    d_wx = states.new_empty((batch, seq, inputs, heads, dim))
    d_rest = states.new_empty((rest, batch, seq, heads, dim)) if rest else None
    arguments: dict[str, Tensor | int | None] = {
        "r": _ready(saved.r),
        "initial": _ready(saved.initial),
        "states": _ready(states),
        "others": _ready(saved.others),
        "d_states": torch.zeros_like(states) if d_states is None else _ready(d_states),
        "d_wx": d_wx if inputs else None,
        "d_rest": d_rest,
        "batch": batch,
        "seq": seq,
    }
    carried = _ready(d_last)
    try:
        kernel = engine.kernel(cell, shape, "backward", states.get_device())
    except InfeasibleError as error:
        _warn(cell, (heads, dim, dtype, "backward"), str(error))
        return None
    for end in range(seq, 0, -saved.span):
        first = max(0, end - saved.span)
        before = states.new_empty((len(cell.states), batch, heads, dim))
        piece = {"gates": _ready(saved.gates(first, end - first)), "first": first, "steps": end - first}
        kernel.run(arguments | piece | {"d_last": carried, "d_initial": before})
        del piece  # before the next one takes memory
        carried = before
    assert carried is not None
    return d_wx, d_rest, carried


def parameter_gradients(
    cell: Cell, d_wx: Tensor, d_rest: Tensor | None, initial: Tensor | None, hidden: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The gradients of R and b by a kernel: as of parameters.parameter_gradients; None where there is none."""
    engine, dtype = ENGINES.get(hidden.device.type), _name(hidden.dtype)
    if engine is None or dtype not in DTYPES:
        return None
    batch, seq, heads, dim = hidden.shape
    kernel = engine.kernel(cell, _shape(batch, seq, heads, dim, dtype), "parameters", hidden.get_device())
    parts = kernel.parts
    kind, sizes = (hidden.dtype, ()) if parts == 1 else (torch.float32, (parts,))
    d_r = hidden.new_empty((*sizes, len(cell.recurrent_gates), heads, dim, dim), dtype=kind)
    d_b = hidden.new_empty((*sizes, len(cell.bias_gates), heads, dim), dtype=kind)
    arguments = {
        "d_wx": _ready(d_wx),
        "d_rest": _ready(d_rest),
        "hidden": _ready(hidden),
        "initial": None if initial is None else _ready(initial[0]),
        "d_r": d_r,
        "d_b": d_b if cell.bias_gates else None,
        "batch": batch,
        "seq": seq,
        "parts": parts,
    }
    kernel.run(arguments)
    return (d_r, d_b) if parts == 1 else (d_r.sum(0).to(hidden.dtype), d_b.sum(0).to(hidden.dtype))


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
