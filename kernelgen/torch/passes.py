"""What runs for given tensors: kernels where there are any, else the reference. Checked and found out once for each
form of the tensors, since an eager step waits for the host."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.cells.registry import differentiated
from kernelgen.program.shape import DTYPES
from kernelgen.torch import kernels, reference
from kernelgen.torch.device import DeviceEngine
from kernelgen.torch.engine import Engine
from kernelgen.torch.parameters import parameter_gradients
from kernelgen.torch.precision import Precision, precision_of, tf32_allowed
from kernelgen.torch.recompute import recompute_gates
from kernelgen.torch.recording import Pass, Result
from kernelgen.torch.reference import Form, form_of
from kernelgen.torch.sequences import NOTHING, Own, require_range

FORMS = 4096
"""How many forms are remembered."""

ENGINES: dict[str, Engine] = {}
"""The engine of each type of device on which kernels have been asked for; on others the reference runs."""


def engine_of(device: str) -> Engine | None:
    """The engine of a type of device, made when it is first asked for."""
    found = ENGINES.get(device)
    if found is None and device == "cuda":
        found = ENGINES[device] = DeviceEngine()
    return found


def engine_for(tensor: Tensor) -> Engine | None:
    """The engine of a tensor's type of device."""
    kind = "cuda" if tensor.is_cuda else tensor.device.type
    return ENGINES.get(kind) or engine_of(kind)


class _Runs(dict[Any, Pass[Result]]):
    """The passes that have been found out, by all that they depend on; no more than FORMS."""

    def __setitem__(self, key: Any, run: Pass[Result]) -> None:
        if len(self) >= FORMS:
            self.clear()
        super().__setitem__(key, run)


_forward_runs: _Runs[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = _Runs()
_step_runs: _Runs[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = _Runs()
_backward_runs: _Runs[tuple[Tensor, Tensor, Tensor, Tensor]] = _Runs()


def forward(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    resets: Tensor | None,
    lengths: Tensor | None,
    order: Tensor | None,
    *options: Any,
    last: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The states [K, B, T, H, D], last [S, B, H, D], the other states [S - K, B, T, H, D] and the gates
    [G_saved, B, T, H, D], the last two None if not kept.

    wx, r, b, initial as of reference.forward; resets, lengths and order as of sequences.Own. options: cell (a key),
    hidden (K is 1, not S), keep (see kernels.Forward), recurrent_cut and recurrent_clip. last: where a
    kernel may put the last states, no memory of initial; what is returned says whether it did. Raises ShapeError for
    tensors that do not belong together, and for lengths on the CPU that are out of range; CellError.
    """
    own = NOTHING if resets is None and lengths is None else Own(resets, lengths, order)
    if lengths is not None:
        require_range(lengths, wx.shape[1])
    forms = (form_of(wx), form_of(r), form_of(b), None if initial is None else form_of(initial))
    return forward_pass(engine_for(wx), forms, () if own is NOTHING else own.features, options)(
        wx, r, b, initial, own, last
    )


def forward_pass(
    engine: Engine | None, forms: tuple[Form, Form, Form, Form | None], features: tuple[str, ...], options: Any
) -> Pass[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    """The forward pass of Wx, R, b and initial states of these forms: see ``forward``, whose errors it raises."""
    dtype = forms[0][1]
    key = (engine, forms, dtype is torch.float32 and tf32_allowed(), features, options)
    run = _forward_runs.get(key)
    if run is None:
        precision = precision_of(dtype, forms[1][1], forms[2][1])
        run = _forward_runs[key] = _forward(engine, precision, *forms, features, *options)
    return run


def pass_with_product(engine: Engine, wx: Form, inputs: int, dtype: str, cell: str, keep: str) -> Pass[Any] | None:
    """A forward pass whose kernel takes x of so many inputs and makes Wx of this form itself: where there is one, and
    the engine expects it to be faster. dtype: a Shape's. keep: as of kernels.Forward. It runs in chains alone."""
    definition, precision = differentiated(cell, False, None), Precision(dtype, float_parameters=False)
    shape = kernels.forward_shape(definition, wx[0], precision, known=1, keep=keep, features=())
    shape = replace(shape, inputs=inputs)
    if not engine.multiplies_input(definition, shape, -1 if wx[2].index is None else wx[2].index):
        return None
    found = kernels.Forward(engine, definition, wx, precision, known=1, keep=keep, inputs=inputs)
    return Pass(cell, definition, shape, "forward", wx[2], found.start, found)


def step(wx: Tensor, r: Tensor, b: Tensor, states: Tensor | None, cell: str, out: Tensor | None) -> Tensor | None:
    """The states [S, B, H, D] after one step of Wx [B, G_in, H, D] by a kernel, in ``out`` where that is given; None
    where there is no kernel, or where what was given does not fit: ``forward`` says more of that. Nothing is kept."""
    if wx.dim() != 4 or (out is not None and (out.dtype is not wx.dtype or out.device != wx.device)):
        return None
    forms = (form_of(wx), form_of(r), form_of(b), None if states is None else form_of(states))
    key = (engine_for(wx), *forms, wx.dtype is torch.float32 and tf32_allowed(), cell)
    run = _step_runs.get(key)
    if run is None:
        (sizes, *place), rest = forms[0], forms[1:]
        form: Form = (torch.Size((sizes[0], 1, *sizes[1:])), *place)
        precision = precision_of(wx.dtype, r.dtype, b.dtype)
        run = _step_runs[key] = _forward(key[0], precision, form, *rest, (), cell, True, "nothing", False, None)
    last: Tensor | None = None if run.kernel is None else run.kernel.step(wx, r, b, states, out)
    if last is not None:
        run.count()
    return last


def backward(
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    states: Tensor,
    others: Tensor | None,
    gates: Tensor | None,
    wx: Tensor | None,
    resets: Tensor | None,
    lengths: Tensor | None,
    order: Tensor | None,
    d_states: Tensor | None,
    d_last: Tensor | None,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wx, r, b and the initial states.

    r, b, initial, resets, lengths and order as of ``forward``; states and others (None or empty where there are none)
    as it returned them; the gates, or wx to compute them. d_states and d_last: the gradients of states and last, None
    for zeros. options: cell, recurrent_cut and recurrent_clip.
    """
    own = NOTHING if resets is None and lengths is None else Own(resets, lengths, order)
    features = () if own is NOTHING else own.features
    engine, again = engine_for(states), gates is None
    run = backward_pass(engine, form_of(states), r.dtype, b.dtype, again=again, features=features, options=options)
    return run(r, b, initial, states, others, gates, wx, d_states, d_last, own)


def backward_pass(
    engine: Engine | None,
    form: Form,
    r: torch.dtype,
    b: torch.dtype,
    *,
    again: bool,
    features: tuple[str, ...] = (),
    options: Any,
) -> Pass[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The backward pass for states of a form, and R and b of these dtypes: see ``backward``. again: no gates were
    kept."""
    key = (engine, form, r, b, again, form[1] is torch.float32 and tf32_allowed(), features, options)
    run = _backward_runs.get(key)
    if run is None:
        run = _backward_runs[key] = _backward(engine, precision_of(form[1], r, b), form, again, features, *options)
    return run


def _forward(
    engine: Engine | None,
    precision: Precision,
    wx: Form,
    r: Form,
    b: Form,
    initial: Form | None,
    features: tuple[str, ...],
    cell: str,
    hidden: bool,
    keep: str,
    *gradient: Any,
) -> Pass[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    """The forward pass of tensors of these forms. Raises ShapeError and CellError."""
    definition = differentiated(cell, *gradient)
    reference.check(definition, wx, r, b, initial)
    known = 1 if hidden else len(definition.states)
    shape = None
    if precision.dtype in DTYPES and wx[0][0]:
        shape = kernels.forward_shape(definition, wx[0], precision, known=known, keep=keep, features=features)
    found = kernels.forward(engine, definition, wx, precision, known=known, keep=keep, features=features)
    run = found.run if found else partial(_forward_by_reference, definition, known, keep)
    return Pass(cell, definition, shape, "forward", wx[2], run, found)


def _backward(
    engine: Engine | None,
    precision: Precision,
    states: Form,
    recompute: bool,
    features: tuple[str, ...],
    cell: str,
    *gradient: Any,
) -> Pass[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The backward pass for states of this form. Raises CellError."""
    definition = differentiated(cell, *gradient)
    shape = None
    if precision.dtype in DTYPES and states[0][1]:
        shape = kernels.backward_shape(definition, states[0], precision, recompute=recompute, features=features)
    found = kernels.backward(engine, definition, states, precision, recompute=recompute, features=features)
    shape = found.shape if found else shape
    run = found.run if found else partial(backward_by_reference, definition)
    return Pass(cell, definition, shape, "backward", states[2], run, found)


def _forward_by_reference(
    cell: Cell,
    known: int,
    keep: str,
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    own: Own,
    _: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """See forward."""
    with torch.autocast(wx.device.type, enabled=False):
        every, last, gates = reference.forward(cell, wx, r, b, initial, keep_gates=keep == "gates", own=own)
    if known == len(cell.states):
        return every, last, None, gates
    return every[:known].clone(), last, every[known:].clone() if keep in ("states", "gates") else None, gates


def backward_by_reference(
    cell: Cell,
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
    """See backward, whose arguments these are; autograd can differentiate it where there are gates."""
    hidden = states[0]
    if others is not None and others.dim() > 1:
        states = torch.cat([states, others])
        d_states = None if d_states is None else torch.cat([d_states, torch.zeros_like(others)])
    with torch.autocast(states.device.type, enabled=False):
        if gates is None:
            assert wx is not None
            gates = recompute_gates(cell, wx, r, b, initial, hidden, own)
        d_gates, d_initial = reference.backward(cell, r, b, initial, states, gates, d_states, d_last, own)
        d_wx = d_gates[list(cell.input_gates)].permute(1, 2, 0, 3, 4).contiguous()
        d_r, d_b = parameter_gradients(cell, d_gates, initial, hidden, r.dtype, b.dtype, own)
    return d_wx, d_r, d_b, d_initial if initial is None else d_initial.to(initial.dtype)
