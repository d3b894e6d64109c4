"""Tensors to kernels: the arguments of every kernel, in their layouts, for any engine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import InfeasibleError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.symbolic.derive import derive
from kernelgen.torch.engine import Engine
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
    inputs: I, where the kernel takes x and W instead of Wx, which no method here gives it: it is for chains.
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
        inputs: int = 0,
    ) -> None:
        (batch, seq, _, heads, dim), _, device = wx
        count, steps = len(cell.states), (batch, seq, heads, dim)
        apart = known < count and keep in ("states", "gates")
        shape = forward_shape(cell, wx[0], precision, known=known, keep=keep, features=features)
        shape = replace(shape, inputs=inputs)
        if keep != "nothing":
            backward = backward_shape(cell, (known, *steps), precision, recompute=keep == "states", features=features)
            floats = precision.float_parameters
            engine.expect(cell, backward, "backward", _index(device), float_parameters=floats)
        if keep == "again":
            again = forward_shape(cell, wx[0], precision, known=known, keep="gates", features=features)
            engine.expect(cell, again, "forward", _index(device))
        self.ready = engine.kernel(cell, shape, "forward", _index(device))
        self.program = self.ready.program
        self.states = (known, *steps)
        self.last = (count, batch, heads, dim)
        self.others = (count - known, *steps) if apart else None
        self.gates = (len(derive(cell).saved_gates), *steps) if keep == "gates" else None
        self._dtype: torch.dtype = wx[1]
        self._discarded: Tensor | None = None  # where a step puts h once more
        names = ("wx", "r", "b", "initial", "states", "others", "last", "gates", *_own(features))
        self.start = _in_chains_alone if inputs else self.ready.bind(names)

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
        dtype, empty = self._dtype, wx.new_empty
        wx, r, b = ready(wx, dtype), ready(r, dtype), ready(b, dtype)
        if initial is not None:
            initial = ready(initial, dtype)
        states = empty(self.states)
        if last is None or last.shape != self.last or not last.is_contiguous() or last.data_ptr() % ALIGNMENT:
            last = empty(self.last)
        others = None if self.others is None else empty(self.others)
        gates = None if self.gates is None else empty(self.gates)
        self.start((wx, r, b, initial, states, others, last, gates, *_own_arrays(own)))
        return states, last, others, gates

    def step(self, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, last: Tensor | None) -> Tensor | None:
        """As run(), of one step that keeps nothing: wx [B, G_in, H, D]; the last states
        [S, B, H, D]; None where ``last`` is not where a kernel can put them."""
        dtype = self._dtype
        if last is not None and (last.shape != self.last or not last.is_contiguous() or last.data_ptr() % ALIGNMENT):
            return None
        wx, r, b = ready(wx, dtype), ready(r, dtype), ready(b, dtype)
        if initial is not None:
            initial = ready(initial, dtype)
            if last is not None and abs(last.data_ptr() - initial.data_ptr()) < last.nbytes:
                return last.copy_(self.step(wx, r, b, initial, None))  # blocks read what others would have written
        if last is None:
            last = wx.new_empty(self.last)
        if self._discarded is None:
            self._discarded = discarded(wx, self.states)
        self.start((wx, r, b, initial, self._discarded, None, last, None))
        return last


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
        self.parameters = torch.float32 if floats else dtype
        self.recompute_before = False  # whether the gates are computed before the kernel rather than by it
        try:
            self.ready = engine.kernel(cell, shape, "backward", _index(device), float_parameters=floats)
        except InfeasibleError:
            if not recompute:
                raise
            shape = replace(shape, recompute=False)
            self.ready = engine.kernel(cell, shape, "backward", _index(device), float_parameters=floats)
            self.recompute_before = True
        self.program, self.shape = self.ready.program, shape
        self.d_wx = (batch, seq, len(cell.input_gates), heads, dim)
        self.d_r = (len(cell.recurrent_gates), heads, dim, dim)
        self.d_b = (len(cell.bias_gates), heads, dim)
        self.d_initial = (len(cell.states), batch, heads, dim)
        self._dtype: torch.dtype = dtype
        self.start = self.ready.bind((*_BACKWARD_INPUTS, *_BACKWARD_OUTPUTS, *_own(features)))

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
        if self.recompute_before:
            assert wx is not None
            with torch.autocast(states.device.type, enabled=False):
                gates, wx = recompute_gates(self._cell, wx, r, b, initial, states[0], own), None
        dtype, empty = self._dtype, states.new_empty
        d_wx, d_initial = empty(self.d_wx), empty(self.d_initial)
        d_r = empty(self.d_r, dtype=self.parameters)
        d_b = empty(self.d_b, dtype=self.parameters)
        given = (wx, r, b, initial, states, others, gates, d_states, d_last)
        arrays = [None if array is None else ready(array, dtype) for array in given]
        if d_states is None:
            arrays[7] = torch.zeros_like(states)
        self.start((*arrays, d_wx, d_r, d_b, d_initial, *_own_arrays(own)))
        if d_r.dtype is not r.dtype or d_b.dtype is not b.dtype:
            d_r, d_b = d_r.to(r.dtype), d_b.to(b.dtype)
        return d_wx, d_r, d_b, d_initial if initial is None else d_initial.to(initial.dtype)


def _in_chains_alone(_: Sequence[Tensor | None]) -> None:
    raise AssertionError("a kernel that multiplies its input runs in a chain")


_BACKWARD_INPUTS = ("wx", "r", "b", "initial", "states", "others", "gates", "d_states", "d_last")
_BACKWARD_OUTPUTS = ("d_wx", "d_r", "d_b", "d_initial")


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


def _own(features: Sequence[str]) -> tuple[str, ...]:
    """The arrays of what sequences have of their own, in the order of ``_own_arrays``."""
    wanted = {"resets": ("resets",), "lengths": ("lengths", "order")}
    return tuple(name for feature in ("resets", "lengths") if feature in features for name in wanted[feature])


def _own_arrays(own: Own) -> Iterator[Tensor]:
    """What sequences have of their own; nothing where they have nothing."""
    return (tensor.contiguous() for tensor in own if tensor is not None)


_discarded: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}


def discarded(like: Tensor, sizes: Sequence[int]) -> Tensor:
    """Memory that nobody reads, for a kernel that must write somewhere: the same for all, on any stream. It is never
    freed, since a CUDA graph may have recorded its address, and grows by doubling."""
    found = _discarded.setdefault((like.device, like.dtype), [])
    count = math.prod(sizes)
    if not found or found[-1].numel() < count:
        found.append(like.new_empty((max(count, 2 * found[-1].numel() if found else 0),)))
    return found[-1][:count].view(*sizes)


def ready(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as a kernel of that dtype can read it: in C order, from an address that vectors may start at."""
    if tensor.dtype is not dtype:
        tensor = tensor.to(dtype)
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
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
