"""Tensors to kernels: the arguments of every kernel, in their layouts, for any engine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import InfeasibleError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.symbolic.derive import derive
from kernelgen.torch.engine import Engine, Kernel
from kernelgen.torch.precision import Precision
from kernelgen.torch.recompute import recompute_gates
from kernelgen.torch.reference import Form
from kernelgen.torch.sequences import Own

ALIGNMENT = 16
"""Bytes: kernels read and write vectors of up to that size."""

_warned: set[tuple[Any, ...]] = set()


class Forward:
    """A forward kernel, prepared for tensors of one form.

    wx: the form of Wx. known: how many states to give out, 1 (h) or all. keep: "nothing", "states" (the others too) or
    "gates" (the others and the gates' sums), for a backward pass; "again" for nothing now, and another
    pass that keeps gates before the backward one. features: what sequences have of their own (program/shape.py).
    Raises InfeasibleError where there is no kernel.
    """

    def __init__(
        self,
        engine: Engine,
        cell: Cell,
        wx: Form,
        precision: Precision,
        *,
        known: int,
        keep: str,
        features: Sequence[str] = (),
    ) -> None:
        (batch, seq, _, heads, dim), _, device = wx
        count, steps = len(cell.states), (batch, seq, heads, dim)
        apart = known < count and keep in ("states", "gates")
        shape = forward_shape(cell, wx[0], precision, known=known, keep=keep, features=features)
        if keep != "nothing":
            backward = backward_shape(cell, (known, *steps), precision, recompute=keep == "states", features=features)
            floats = precision.float_parameters
            engine.expect(cell, backward, "backward", _index(device), float_parameters=floats)
        if keep == "again":
            again = forward_shape(cell, wx[0], precision, known=known, keep="gates", features=features)
            engine.expect(cell, again, "forward", _index(device))
        self._kernel = engine.kernel(cell, shape, "forward", _index(device))
        self.program = self._kernel.program
        self._states = (known, *steps)
        self._last = (count, batch, heads, dim)
        self._others = (count - known, *steps) if apart else None
        self._gates = (len(derive(cell).saved_gates), *steps) if keep == "gates" else None
        self._workspaces = _workspaces(self._kernel)

    def run(
        self,
        wx: Tensor,
        r: Tensor,
        b: Tensor,
        initial: Tensor | None,
        own: Own,
        last: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Run it; wx, r, b, initial and own as of reference.forward; last: see passes.forward.

        Returns states [known, B, T, H, D], last [S, B, H, D], others [S - known, B, T, H, D] and gates
        [G_saved, B, T, H, D], the last two None where there is none to keep.
        """
        states = wx.new_empty(self._states)
        if last is None or last.shape != self._last or not last.is_contiguous() or last.data_ptr() % ALIGNMENT:
            last = wx.new_empty(self._last)
        others = None if self._others is None else wx.new_empty(self._others)
        gates = None if self._gates is None else wx.new_empty(self._gates)
        arguments: dict[str, Tensor | None] = {
            "wx": _ready(wx),
            "r": _ready(r, wx.dtype),
            "b": _ready(b, wx.dtype),
            "initial": _ready(initial, wx.dtype),
            **_own_arrays(own),
            "states": states,
            "others": others,
            "last": last,
            "gates": gates,
        }
        for name, sizes, dtype in self._workspaces:
            arguments[name] = wx.new_empty(sizes, dtype=dtype)
        self._kernel.run(arguments)
        return states, last, others, gates


class Backward:
    """A backward program, prepared for states of one form.

    recompute: the gates were not kept. features: as of Forward. shape: what the kernel is asked for, which recomputes
    gates only where it does so itself. Raises InfeasibleError where there is no kernel.
    """

    def __init__(
        self,
        engine: Engine,
        cell: Cell,
        states: Form,
        precision: Precision,
        *,
        recompute: bool,
        features: Sequence[str] = (),
    ) -> None:
        (_, batch, seq, heads, dim), dtype, device = states
        self._cell = cell
        shape = backward_shape(cell, states[0], precision, recompute=recompute, features=features)
        floats = precision.float_parameters
        self._parameters = torch.float32 if floats else dtype
        self._recompute_before = False  # whether the gates are computed before the kernel rather than by it
        try:
            self._kernel = engine.kernel(cell, shape, "backward", _index(device), float_parameters=floats)
        except InfeasibleError:
            if not recompute:
                raise
            shape = replace(shape, recompute=False)
            self._kernel = engine.kernel(cell, shape, "backward", _index(device), float_parameters=floats)
            self._recompute_before = True
        self.program, self.shape = self._kernel.program, shape
        self._d_wx = (batch, seq, len(cell.input_gates), heads, dim)
        self._d_r = (len(cell.recurrent_gates), heads, dim, dim)
        self._d_b = (len(cell.bias_gates), heads, dim)
        self._d_initial = (len(cell.states), batch, heads, dim)
        self._workspaces = _workspaces(self._kernel)

    def run(
        self,
        r: Tensor,
        b: Tensor,
        initial: Tensor | None,
        states: Tensor,
        others: Tensor | None,
        gates: Tensor | None,
        wx: Tensor | None,
        d_states: Tensor | None,
        d_last: Tensor | None,
        own: Own,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run it; see passes.backward."""
        if self._recompute_before:
            assert wx is not None
            with torch.autocast(states.device.type, enabled=False):
                gates, wx = recompute_gates(self._cell, wx, r, b, initial, states[0], own), None
        d_wx = states.new_empty(self._d_wx)
        d_r = states.new_empty(self._d_r, dtype=self._parameters)
        d_b = states.new_empty(self._d_b, dtype=self._parameters)
        d_initial = states.new_empty(self._d_initial)
        arguments: dict[str, Tensor | None] = {
            "wx": _ready(wx),
            "r": _ready(r, states.dtype),
            "b": _ready(b, states.dtype),
            "initial": _ready(initial, states.dtype),
            "states": _ready(states),
            "others": _ready(others),
            "gates": _ready(gates),
            "d_states": torch.zeros_like(states) if d_states is None else _ready(d_states),
            "d_last": _ready(d_last),
            **_own_arrays(own),
            "d_wx": d_wx,
            "d_r": d_r,
            "d_b": d_b,
            "d_initial": d_initial,
        }
        for name, sizes, dtype in self._workspaces:
            arguments[name] = states.new_empty(sizes, dtype=dtype)
        self._kernel.run(arguments)
        return d_wx, d_r.to(r.dtype), d_b.to(b.dtype), d_initial if initial is None else d_initial.to(initial.dtype)


def forward(
    engine: Engine | None,
    cell: Cell,
    wx: Form,
    precision: Precision,
    *,
    known: int,
    keep: str,
    features: Sequence[str] = (),
) -> Forward | None:
    """A forward pass by a kernel (see Forward), or None where there is none; then a warning says why, but not where the
    type of device has no engine, nor for no sequences at all."""
    batch, _, _, heads, dim = wx[0]
    if engine is None or not batch:
        return None
    dtype = precision.dtype
    case = (heads, dim, dtype, *features)
    if dtype not in DTYPES:
        *most, last = dict.fromkeys(dtype_info(name).stored for name in DTYPES)
        warn(cell, case, f"kernels compute in {', '.join(most)} or {last}, not in {dtype}.")
        return None
    try:
        return Forward(engine, cell, wx, precision, known=known, keep=keep, features=features)
    except InfeasibleError as error:
        warn(cell, case, str(error))
        return None


def backward(
    engine: Engine | None,
    cell: Cell,
    states: Form,
    precision: Precision,
    *,
    recompute: bool,
    features: Sequence[str] = (),
) -> Backward | None:
    """A backward pass by kernels (see Backward), or None where there is none; then a warning says why, but not of what
    the forward pass has warned of."""
    (_, batch, _, heads, dim), dtype = states[0], precision.dtype
    if engine is None or not batch or dtype not in DTYPES:
        return None
    try:
        return Backward(engine, cell, states, precision, recompute=recompute, features=features)
    except InfeasibleError as error:
        warn(cell, (heads, dim, dtype, *features, "backward"), str(error))
        return None


def forward_shape(
    cell: Cell, wx: Sequence[int], precision: Precision, *, known: int, keep: str, features: Sequence[str]
) -> Shape:
    """What a forward pass asks an engine for: see Forward. wx: the sizes [B, T, G_in, H, D]."""
    batch, seq, _, heads, dim = wx
    whole = known == len(cell.states) or keep in ("states", "gates")
    save = "gates" if keep == "gates" else "states" if whole else "hidden"
    return Shape(batch, seq, heads, dim, precision.dtype, save, **dict.fromkeys(features, True))


def backward_shape(
    cell: Cell, states: Sequence[int], precision: Precision, *, recompute: bool, features: Sequence[str]
) -> Shape:
    """What a backward pass asks an engine for: see Backward. states: their sizes [K, B, T, H, D]."""
    known, batch, seq, heads, dim = states
    save = "gates" if known == len(cell.states) else "hidden"
    return Shape(batch, seq, heads, dim, precision.dtype, save, recompute, **dict.fromkeys(features, True))


def _own_arrays(own: Own) -> dict[str, Tensor | None]:
    """What sequences have of their own, by the names of the arguments; nothing where they have nothing."""
    return {name: tensor.contiguous() for name, tensor in own._asdict().items() if tensor is not None}


def _workspaces(kernel: Kernel) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Name, sizes and dtype of what a kernel's calls need besides; it need hold nothing."""
    return [(array.name, array.shape, getattr(torch, array.dtype)) for array in kernel.workspaces]


def _ready(tensor: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
    """The tensor as a kernel can read it: in C order, from an address that vectors may start at. dtype: that it reads,
    where it may be another than the tensor's."""
    if tensor is None:
        return None
    tensor = (tensor if dtype is None else tensor.to(dtype)).contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def _index(device: torch.device) -> int:
    """The index of a device, -1 for the CPU."""
    return -1 if device.index is None else device.index


def warn(cell: Cell, case: tuple[Any, ...], reason: str) -> None:
    """Say, once for each case, that the reference runs instead of a kernel."""
    if (cell.fingerprint, *case) in _warned:
        return
    _warned.add((cell.fingerprint, *case))
    warnings.warn(
        f"{cell.name} runs as a PyTorch loop, which is right but slow, for there is no kernel: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
